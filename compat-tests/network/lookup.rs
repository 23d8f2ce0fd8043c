//! The lookup of credentials alongside the connection.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;

use ssm_sim::{Config, Proxy, ProxyOptions};

use super::{SERVICE, Site};
use crate::harness::net::Server;
use crate::harness::retry::uninterrupted;

/// The `credential_process` waits until the service has answered the TLS handshake, which the session starts at the same time.
#[test]
fn credentials_are_looked_up_while_the_connection_is_being_made() {
    for is_proxied in [false, true] {
        let config = Config { require_signed_open: true, ..Config::default() };
        let mut site = Site::with(config, |_| SERVICE.to_owned()).trusting();
        let answered = site.world.path("answered");
        let relay = relay_that_notes(site.front.port(), answered.clone());
        let to = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, relay.port())));
        let proxy = Proxy::start(ProxyOptions { to, ..ProxyOptions::default() }).expect("start the proxy");
        if is_proxied {
            site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port()));
        } else {
            site.sim.set_stream_base(&format!("wss://localhost:{}", relay.port()));
        }
        let script = format!(
            "until test -e '{}'; do sleep 0.02; done\n\
             echo '{{\"Version\":1,\"AccessKeyId\":\"AKIAIOSFODNN7EXAMPLE\",\"SecretAccessKey\":\"x\"}}'\n",
            answered.display()
        );
        std::fs::write(site.world.path("keys.sh"), script).expect("write");
        std::fs::create_dir(site.world.home().join(".aws")).expect("config folder");
        let line = format!("[default]\ncredential_process = sh {}\n", site.world.path("keys.sh").display());
        std::fs::write(site.world.home().join(".aws/config"), line).expect("config");
        site.world.unset(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
        site.works();
    }
}

/// A relay that makes `file` when the other side has sent something.
fn relay_that_notes(to: u16, file: PathBuf) -> Server {
    Server::start(move |mut client| {
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).expect("connect");
        let (mut from_client, mut to_server) =
            (client.try_clone().expect("clone"), server.try_clone().expect("clone"));
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let mut first = [0; 1];
        if matches!(uninterrupted(|| server.read(&mut first)), Ok(1)) {
            std::fs::write(&file, "").expect("write");
            let _ = client.write_all(&first);
            let _ = std::io::copy(&mut server, &mut client);
        }
        let _ = client.shutdown(Shutdown::Write);
    })
}
