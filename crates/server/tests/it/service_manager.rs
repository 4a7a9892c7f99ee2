//! What a service manager sees of the process: exit codes, signals, readiness.

use std::os::unix::net::UnixDatagram;

use testkit::Space;

use crate::support::{LIMIT, Tenantd, World, environment};

#[tokio::test]
async fn an_exit_code_tells_a_wrong_setting_from_a_server_that_does_not_answer() {
    let space = Space::new().await;
    let with = |name: &str, value: &str| {
        let mut env = environment(&space);
        env.insert(name.to_owned(), value.to_owned());
        env
    };
    for (name, value, code) in [
        ("TENANTRY_HTTP_LISTEN", "nowhere", 2),
        ("TENANTRY_HTTP_LISTEM", "127.0.0.1:0", 2),
        ("MASTER_PGPORT", "1", 6),
    ] {
        let (ended, said) = Tenantd::fails_with_code(&space, with(name, value)).await;
        assert_eq!(ended, Some(code), "{name}={value}: {said}");
        assert!(said.contains("error: "), "{said}");
    }
}

#[tokio::test]
async fn a_hangup_does_not_end_a_service() {
    let world = World::start().await;
    let d = &world.server;
    d.signal("HUP").await;
    d.logged("SIGHUP was ignored").await;
    d.get("", "/readyz").await.expect(200);
    assert_eq!(world.stop().await, Some(0));
}

#[tokio::test]
async fn the_service_manager_is_told_when_it_serves_and_when_it_stops() {
    let world = World::start().await;
    let path = world.space.dir().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut env = environment(&world.space);
    env.insert("NOTIFY_SOCKET".to_owned(), path.display().to_string());
    let server = Tenantd::start(&world.space, env).await;
    let receive = || {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let ready = receive();
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    assert_eq!(server.stop().await, Some(0));
    let stopping = receive();
    assert!(stopping.lines().any(|line| line == "STOPPING=1"), "{stopping}");
}
