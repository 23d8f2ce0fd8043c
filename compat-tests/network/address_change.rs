//! The machine gets another address, as after a Wi-Fi change: in a network namespace, where the system reports it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use ssm_sim::{Config, ProxyOptions};

use super::{API, SERVICE, Site};
use crate::harness::api::Started;
use crate::harness::net::eventually;
use crate::harness::process::Running;
use crate::harness::sim::assert_all_ended;
use crate::harness::{is_root, required, required_one_of};

/// Runs in the namespace: the plugin reaches the proxy at 10.9.0.1 from 10.9.0.2, and from 10.9.0.3 after a byte on the
/// socket `control`. Connections are carried out of the namespace by the socket `out`.
const INSIDE: &str = r#"
import socket, subprocess, sys, threading
ip, folder, *plugin = sys.argv[1:]
run = lambda *words: subprocess.run([ip, *words], check=True)
def use(address):
    run("address", "add", address + "/32", "dev", "lo")
    run("route", "replace", "local", "10.9.0.1/32", "dev", "lo", "src", address, "table", "local")
def copy(source, sink):
    try:
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
def carry():
    while True:
        inner = listener.accept()[0]
        outer = socket.socket(socket.AF_UNIX)
        outer.connect(folder + "/out")
        for pair in (inner, outer), (outer, inner):
            threading.Thread(target=copy, args=pair, daemon=True).start()
def change():
    asked = control.accept()[0]
    asked.recv(1)
    run("address", "del", "10.9.0.2/32", "dev", "lo")
    use("10.9.0.3")
    asked.close()
run("link", "set", "lo", "up")
use("10.9.0.2")
listener = socket.create_server(("", 3128))
control = socket.socket(socket.AF_UNIX)
control.bind(folder + "/control")
control.listen()
for thread in carry, change:
    threading.Thread(target=thread, daemon=True).start()
sys.exit(subprocess.run(plugin).returncode)
"#;

/// Carries connections to the UNIX socket `path` on to `port`.
fn carry_out(path: &Path, port: u16) {
    let listener = UnixListener::bind(path).expect("bind");
    std::thread::spawn(move || {
        for inner in listener.incoming().map_while(Result::ok) {
            let Ok(outer) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return };
            let (to, from) = (outer.try_clone().expect("clone"), inner.try_clone().expect("clone"));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &from, &mut &to);
                let _ = to.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &outer, &mut &inner);
                let _ = inner.shutdown(Shutdown::Both);
            });
        }
    });
}

/// `command` in a network namespace, with [`INSIDE`] around it.
fn in_a_network_namespace(site: &Site, command: &Command) -> Command {
    let mut inside = site.world.command(required("/usr/bin/unshare"));
    inside.arg("--net");
    if !is_root() {
        inside.args(["--user", "--map-root-user"]);
    }
    inside.arg(required("/usr/bin/python3")).args(["-c", INSIDE]);
    inside.arg(required_one_of(&["/usr/sbin/ip", "/usr/bin/ip", "/sbin/ip"])).arg(site.world.path(""));
    inside.arg(command.get_program()).args(command.get_args());
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    inside
}

#[test]
fn a_session_moves_to_the_new_address_at_once() {
    let mut site = Site::with(Config::default(), |_| SERVICE.to_owned()).trusting();
    let proxy = site.proxy(ProxyOptions::default());
    site.set("HTTPS_PROXY", "http://10.9.0.1:3128");
    site.set("SSM_PLUGIN_STATUS", "always");
    carry_out(&site.world.path("out"), proxy.port());
    let parameters = json!({"portNumber": [site.echo.port().to_string()]});
    let mut started = Started::at(&site.sim.endpoint(), Some("AWS-StartSSHSession"), parameters);
    started.endpoint = format!("https://{API}");
    let command = started.command(&site.world);
    let mut plugin = Running::spawn(&mut in_a_network_namespace(&site, &command));
    plugin.stdout.wait_for("SessionId: ");
    plugin.send("before\n");
    plugin.stdout.wait_for("before\n");

    let mut control = UnixStream::connect(site.world.path("control")).expect("connect");
    control.write_all(b"!").expect("write");
    let began = Instant::now();
    assert_eq!(control.read(&mut [0]).expect("the end of the change"), 0);
    plugin.send("after\n");
    plugin.stdout.wait_for("after\n");
    println!("typed to echoed: {:?}", began.elapsed());
    // Neither pings nor missing answers were waited for.
    plugin.stderr.wait_for("connection lost (this machine's network address has changed), reconnecting\n");
    plugin.stderr.wait_for("connection resumed\n");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(site.sim.session(started.id()).expect("the session").opens.len(), 2);
    plugin.close_stdin();
    plugin.finish().assert_ok();
    eventually("the end of the session", || proxy.requests().len() > 2);
    assert_all_ended(&site.sim);
}
