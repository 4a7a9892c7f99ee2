//! A full disk is named to whoever wants to join, soon, and whoever runs the server is not to be ended for
//! it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::helper::{Owner, kill_9, postmaster, start, temp_dir};

/// A file system with room for one small cluster.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=192m,mode=755", "tmpfs"])
            .arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("fill");
        let mut file = fs::File::create(&path).unwrap();
        let block = vec![0; 4096];
        while file.write_all(&block).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn a_full_disk_is_named_soon_and_nobody_is_told_to_end_the_owner() {
    let dir = temp_dir();
    let Some(disk) = SmallDisk::mount(dir.path()) else {
        return;
    };
    let home = dir.path().join("cluster");
    let owner = Owner::start(&home);
    let fill = disk.fill();
    kill_9(postmaster(&home));
    let began = Instant::now();
    let told = start(&home).await.unwrap_err().to_string();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(told.contains("is full") && told.contains("free"), "{told}");
    assert!(!told.contains("end that process"), "{told}");
    fs::remove_file(fill).unwrap();
    drop(owner);
    let cluster = start(&home).await.unwrap();
    assert!(cluster.is_owner());
    cluster.stop().await.unwrap();
}
