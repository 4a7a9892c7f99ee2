//! What hashing leaves behind.

use std::time::Duration;

use identity::{PasswordOptions, Passwords};

const PARALLEL: usize = 4;

/// Resident memory of this process, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_leaves_no_more_memory_behind_than_the_permits_have() {
    let passwords = Passwords::new(PasswordOptions {
        parallel_max: PARALLEL,
        wait_max: Duration::from_secs(300),
    });
    let before = resident_mib();
    for _ in 0..3 {
        let crowd: Vec<_> = (0..40)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.verify(&"correct horse battery".into(), None).await })
            })
            .collect();
        for one in crowd {
            assert!(!one.await.unwrap().unwrap());
        }
    }
    let kept = resident_mib().saturating_sub(before);
    println!("{kept} MiB kept");
    // 19 MiB for each permit, and a little for threads and queues.
    assert!(kept <= 19 * PARALLEL as u64 + 16, "{kept} MiB");
}
