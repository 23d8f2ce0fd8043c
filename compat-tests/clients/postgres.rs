//! A real database through a forwarded port: PostgreSQL, psql and pgbench.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::api::Started;
use crate::harness::net::{FreePort, connect, opened_port};
use crate::harness::process::{Running, run};
use crate::harness::sim::{assert_all_ended, sim, unpaced_sim};
use crate::harness::{PATIENCE, TARGET, World, is_root, required};
use crate::port::additional::leads_to;
use crate::port::socks::web;

/// A PostgreSQL server of its own, ended with the test.
struct Postgres {
    port: FreePort,
    _server: Running,
    _dir: TempDir,
}

impl Postgres {
    #[track_caller]
    fn start(world: &World) -> Postgres {
        let dir = tempfile::Builder::new().prefix("ssm-compat-pg-").tempdir().expect("a temporary folder");
        let data = dir.path().join("data");
        if is_root() {
            // PostgreSQL refuses to run as root.
            let (uid, gid) = unprivileged();
            chown(dir.path(), Some(uid), Some(gid)).expect("chown");
        }
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).expect("chmod");
        let mut initdb = server_command(world, "initdb", dir.path());
        initdb.args(["--no-sync", "-A", "trust", "-U", "test", "-E", "UTF8", "--locale=C", "-D"]);
        run(initdb.arg(&data)).assert_ok();
        let port = FreePort::new();
        let mut server = server_command(world, "postgres", dir.path());
        server.arg("-D").arg(&data).args(["-p", &port.number().to_string(), "-F"]);
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        let server = Running::spawn_without_stdin(&mut server);
        server.stderr.wait_for("ready to accept connections");
        Postgres { port, _server: server, _dir: dir }
    }
}

/// A session that forwards to the database, and a client's command through it.
struct Forwarded {
    world: World,
    port: u16,
    _postgres: Postgres,
    _plugin: Running,
    _sim: ssm_sim::Sim,
}

impl Forwarded {
    #[track_caller]
    fn new() -> Forwarded {
        let (world, sim) = (World::new(), sim());
        let postgres = Postgres::start(&world);
        let started = Started::port(&sim.endpoint(), postgres.port.number(), 0);
        let plugin = Running::spawn_without_stdin(&mut started.command(&world));
        let port = opened_port(&plugin.stdout);
        Forwarded { world, port, _postgres: postgres, _plugin: plugin, _sim: sim }
    }

    fn client(&self, program: &str) -> Command {
        let mut command = self.world.command(postgres_program(program));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "test"]);
        command
    }
}

#[test]
fn psql_queries() {
    let forwarded = Forwarded::new();
    let finished = run(forwarded.client("psql").args(["-d", "postgres", "-Atc", "select 6 * 7"]));
    finished.assert_ok();
    assert_eq!(finished.text(), "42\n");
    // A result of half a megabyte: whole and in order.
    let query = "select string_agg(lpad(n::text, 9, '0'), ',' order by n) from generate_series(1, 50000) n";
    let finished = run(forwarded.client("psql").args(["-d", "postgres", "-Atc", query]));
    finished.assert_ok();
    let expected: Vec<String> = (1..=50_000).map(|n| format!("{n:09}")).collect();
    assert!(finished.text().trim_end() == expected.join(","), "the result differs");
}

/// "Open the tunnels, run this, close them" (cloud-sql-proxy#1056): three ports and a proxy around psql.
#[test]
fn psql_as_the_command_of_three_forwards_and_a_proxy() {
    let sim = sim();
    sim.set_host("db.internal", "127.0.0.1");
    let world = crate::commands::world(&sim);
    let postgres = Postgres::start(&world);
    let port = postgres.port.number();
    let (first, second) = (format!("0:db.internal:{port}"), format!("0:{port}"));
    let third = format!("127.0.0.1:0:db.internal:{port}");
    let psql = postgres_program("psql").display().to_string();
    for (query, text, status) in [("select 6 * 7", "42\n", 0), ("select nonsense", "", 1)] {
        let forward = ["forward", TARGET, &first, &second, "-L", &third, "-D", "0", "--", &psql];
        let client = ["-h", "127.0.0.1", "-p", "{port_3}", "-U", "test", "-d", "postgres", "-Atc", query];
        let finished = run(&mut crate::commands::plugin(&world, &[&forward[..], &client].concat()));
        let errors = finished.errors();
        assert_eq!((finished.text().as_str(), finished.status.code()), (text, Some(status)), "{errors}");
        assert_eq!(errors.matches(" -> ").count(), 4, "{errors}");
        assert!(errors.contains("ready\n"), "{errors}");
    }
    assert_all_ended(&sim);
}

#[test]
fn pgbench_with_20_connections() {
    let forwarded = Forwarded::new();
    run(forwarded.client("pgbench").args(["-q", "-i", "-s", "1", "postgres"])).assert_ok();
    let mut bench = forwarded.client("pgbench");
    bench.args(["-n", "-c", "20", "-j", "2", "-t", "10", "postgres"]);
    let finished = Running::spawn_without_stdin(&mut bench).finish_within(PATIENCE + Duration::from_secs(60));
    finished.assert_ok();
    let text = finished.text();
    assert!(text.contains("number of transactions actually processed: 200/200"), "{text}");
}

/// A PostgreSQL program, started as another user when the tests run as root.
fn server_command(world: &World, program: &str, dir: &Path) -> Command {
    let program = postgres_program(program);
    let mut command = if is_root() {
        let (uid, gid) = unprivileged();
        let mut command = world.command("/usr/bin/setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
        command.arg("--").arg(program);
        command
    } else {
        world.command(program)
    };
    command.env("HOME", dir).env("TMPDIR", dir).env("LC_ALL", "C").current_dir(dir);
    command
}

/// The newest installed PostgreSQL's program.
fn postgres_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("PostgreSQL's {name} is missing: run scripts/setup tests"))
}

/// User and group to run a server as: the package's, or `nobody`.
fn unprivileged() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let of = |name: &str| {
        let line = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    of("postgres").or_else(|| of("nobody")).expect("a user to run PostgreSQL as")
}

/// smp#24, smp#88: one command for the whole VPC. Two forwards and, by SOCKS, three destinations by name, all at once, and
/// a thousand short requests at the same time.
#[test]
fn a_database_and_a_web_server_by_forwards_and_by_socks_at_once() {
    let (mut world, sim, web) = (World::new(), unpaced_sim(), web());
    let postgres = Postgres::start(&world);
    for name in ["db.internal", "web.internal", "other.internal"] {
        sim.set_host(name, "127.0.0.1");
    }
    let (db, page) =
        (format!("db.internal:{}", postgres.port.number()), format!("web.internal:{}", web.port()));
    let other = format!("other.internal:{}", web.port());
    world.set("SSM_PLUGIN_FORWARD", &format!("0:{db} 0:{page}"));
    world.set("SSM_PLUGIN_SOCKS", "0");
    let started = Started::port(&sim.endpoint(), postgres.port.number(), 0);
    let plugin = Running::spawn_without_stdin(&mut started.command(&world));
    let ports = [leads_to(&plugin, &db), leads_to(&plugin, &page)];
    plugin.stderr.wait_for("SOCKS and HTTP proxy on 127.0.0.1:");
    let socks: u16 = plugin.stderr.wait_for("\n").trim().parse().expect("a port");
    // psql speaks no SOCKS: a wrapper does for it.
    let wrapped = socks_wrapper(socks, "db.internal", postgres.port.number());
    let psql = |port: u16| {
        let mut command = world.command(postgres_program("psql"));
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "test", "-d", "postgres"]);
        let query = "select sum(n) from generate_series(1, 100000) n";
        Running::spawn_without_stdin(command.args(["-Atc", query]))
    };
    let curl = |arguments: &[&str]| {
        let mut command = world.command(required("/usr/bin/curl"));
        Running::spawn_without_stdin(command.args(["-sS", "--max-time", "120"]).args(arguments))
    };
    let proxy = format!("127.0.0.1:{socks}");
    let by_socks = ["--socks5-hostname", &proxy];
    // One connection for each, since the server closes it.
    let thousand = |url: &str| format!("{url}/[1-500]/");
    let running = [
        psql(ports[0]),
        psql(wrapped),
        curl(&[&format!("http://127.0.0.1:{}/forward", ports[1])]),
        curl(&[by_socks[0], by_socks[1], &format!("http://{page}/socks")]),
        curl(&[by_socks[0], by_socks[1], &thousand(&format!("http://{other}"))]),
        curl(&[&thousand(&format!("http://127.0.0.1:{}", ports[1]))]),
    ];
    let paths: String = (1..=500).map(|number| format!("/{number}/")).collect();
    let expected = ["5000050000\n", "5000050000\n", "/forward", "/socks", &paths, &paths];
    for (client, expected) in running.into_iter().zip(expected) {
        let finished = client.finish_within(PATIENCE + Duration::from_secs(120));
        finished.assert_ok();
        assert_eq!(finished.text(), expected);
    }
    // argv's, which is unused, one for each forward, one for each destination by SOCKS.
    assert_eq!(sim.requests().start, 1 + 2 + 3);
    plugin.signal(Signal::INT);
    plugin.finish().assert_ok();
    assert_all_ended(&sim);
}

/// A local port whose connections are asked for at a SOCKS proxy.
fn socks_wrapper(proxy: u16, name: &'static str, port: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let local = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("accept");
        let mut server = connect(proxy);
        let request =
            [&[5, 1, 0, 5, 1, 0, 3, name.len() as u8][..], name.as_bytes(), &port.to_be_bytes()].concat();
        server.write_all(&request).expect("write");
        let mut answer = [0; 12];
        server.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[3], 0);
        let (mut from_client, mut to_server) =
            (client.try_clone().expect("clone"), server.try_clone().expect("clone"));
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut server, &mut client);
    });
    local
}
