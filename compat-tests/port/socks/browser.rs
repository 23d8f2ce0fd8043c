//! Many hosts at a browser's pace: more destinations than there may be sessions, and probes of what is there.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use ssm_sim::{SessionState, Sim};

use super::{Proxy, web};
use crate::harness::World;
use crate::harness::net::{Server, connect, eventually};
use crate::harness::sim::{assert_all_ended, unpaced_sim};

/// One request by SOCKS: the whole answer.
fn get(proxy: u16, host: &str, port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = connect(proxy);
    stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
    let greeting = [&[5, 1, 0, 5, 1, 0, 3, host.len() as u8], host.as_bytes(), &port.to_be_bytes()].concat();
    stream.write_all(&greeting)?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    if answer[3] != 0 {
        return Err(std::io::Error::other(format!("SOCKS reply {}", answer[3])));
    }
    stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn hosts(sim: &Sim, count: usize) -> Vec<String> {
    let names: Vec<_> = (0..count).map(|number| format!("host{number}.internal")).collect();
    names.iter().for_each(|name| sim.set_host(name, "127.0.0.1"));
    names
}

/// Found with Chromium: 29 of 60 images failed, since 32 destinations were in use.
#[test]
fn sixty_hosts_and_two_hundred_requests_with_six_at_a_time_for_each_host() {
    let (mut world, sim, web, echo) = (World::new(), unpaced_sim(), web(), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let hosts = hosts(&sim, 60);
    let threads: Vec<_> = (0..200)
        .map(|number| {
            // Six in a row are one host's, as a browser asks for the pictures of a page.
            let host = hosts[number / 6 % hosts.len()].clone();
            let (proxy, web) = (proxy.port, web.port());
            std::thread::spawn(move || {
                let path = format!("/{number}");
                let answer = get(proxy, &host, web, &path);
                answer.map(|text| assert!(text.ends_with(&path), "{text}")).map_err(|error| (host, error))
            })
        })
        .collect();
    let failed: Vec<_> =
        threads.into_iter().filter_map(|thread| thread.join().expect("a client").err()).collect();
    assert!(failed.is_empty(), "{} of 200 failed: {failed:?}", failed.len());
    proxy.end();
    assert_all_ended(&sim);
}

/// Browsers keep connections for minutes: 76 of 200 images of 60 hosts failed in Chromium. One that is used for something
/// else than HTTP is not cut off for others.
#[test]
fn sixty_hosts_whose_connections_are_kept_alive() {
    let (mut world, sim, echo) = (World::new(), unpaced_sim(), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    let (_, mut database) = proxy.connect(&hosts(&sim, 61)[60], echo.port());
    database.write_all(b"x").expect("write");
    database.read_exact(&mut [0]).expect("read");
    let threads: Vec<_> = hosts(&sim, 60)
        .into_iter()
        .map(|host| {
            let (proxy, port) = (proxy.port, echo.port());
            std::thread::spawn(move || -> std::io::Result<TcpStream> {
                let mut stream = connect(proxy);
                stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
                let request = b"GET / HTTP/1.1\r\n\r\n";
                let head = [&[5, 1, 0, 5, 1, 0, 3, host.len() as u8], host.as_bytes(), &port.to_be_bytes()];
                stream.write_all(&head.concat())?;
                let mut answer = [0; 12];
                stream.read_exact(&mut answer)?;
                assert_eq!(answer[3], 0, "{host}");
                stream.write_all(request)?;
                stream.read_exact(&mut [0; 18])?;
                Ok(stream)
            })
        })
        .collect();
    let kept: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("a client")).collect();
    let failed: Vec<_> = kept.iter().filter_map(|stream| stream.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of 60 failed, such as {:?}", failed.len(), failed[0]);
    database.write_all(b"y").expect("write");
    database.read_exact(&mut [0]).expect("the database connection lives");
    proxy.end();
    assert_all_ended(&sim);
}

/// Found with curl: the last 8 of 40 were refused, although the others had gone.
#[test]
fn forty_destinations_one_after_another() {
    let (mut world, sim, web, echo) = (World::new(), unpaced_sim(), web(), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    for host in hosts(&sim, 40) {
        let answer = get(proxy.port, &host, web.port(), "/x");
        assert!(answer.as_ref().is_ok_and(|text| text.ends_with("/x")), "{host}: {answer:?}");
    }
    let open = || sim.sessions().iter().filter(|session| session.state != SessionState::Ended).count();
    eventually("those that made room are ended", || open() <= 33);
    proxy.end();
    assert_all_ended(&sim);
}

/// A FORWARD port served all of them, the proxy refused 144.
#[test]
fn four_hundred_clients_before_the_first_session_is_ready() {
    let (mut world, sim, web, echo) = (World::new(), unpaced_sim(), web(), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    hosts(&sim, 1);
    sim.refuse_starts(Some("TargetNotConnected"));
    let threads: Vec<_> = (0..400)
        .map(|number| {
            let (proxy, web) = (proxy.port, web.port());
            std::thread::spawn(move || get(proxy, "host0.internal", web, &format!("/{number}")))
        })
        .collect();
    proxy.plugin.stderr.wait_for("cannot start a session");
    let before = sim.requests().start;
    eventually("more attempts", || sim.requests().start >= before + 2);
    sim.refuse_starts(None);
    let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("a client")).collect();
    let failed: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert!(failed.is_empty(), "{} of 400 failed, such as {:?}", failed.len(), failed[0]);
    proxy.end();
    assert_all_ended(&sim);
}

/// A request that cannot be served is answered in its protocol, and reported once for each reason.
#[test]
fn clients_of_other_protocols_get_an_answer_and_a_line() {
    let (mut world, sim, echo) = (World::new(), unpaced_sim(), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    for _ in 0..2 {
        let mut http = connect(proxy.port);
        http.write_all(b"GET http://db.internal/ HTTP/1.1\r\nHost: db.internal\r\n\r\n").expect("write");
        let mut answer = String::new();
        http.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{answer:?}");
    }
    let mut bind = connect(proxy.port);
    bind.write_all(&[4, 2, 0, 80, 10, 0, 0, 1, 0]).expect("write");
    let mut answer = Vec::new();
    bind.read_to_end(&mut answer).expect("an answer");
    assert_eq!(answer, [0, 91, 0, 0, 0, 0, 0, 0], "SOCKS 4: rejected");
    drop(bind);
    let mut tls = connect(proxy.port);
    tls.write_all(&[0x16, 3, 1, 2, 0, 1]).expect("write");
    assert_eq!(tls.read(&mut [0]).expect("the end"), 0);
    assert_eq!(proxy.connect("db", echo.port()).0, 4);
    let lines = [
        "an HTTP request other than CONNECT",
        "a command other than CONNECT",
        "neither SOCKS nor HTTP",
        "at least 3 characters",
    ];
    for line in lines {
        eventually(line, || proxy.plugin.stderr.text().contains(line));
    }
    let errors = proxy.end();
    for line in lines {
        assert_eq!(errors.matches(line).count(), 1, "{line}: {errors}");
    }
    assert_eq!(sim.requests().start, 1);
}

/// A client that goes without its reply, or stays after it was refused, is not kept.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "reads /proc")]
fn a_refused_client_is_closed_at_once() {
    let (mut world, sim, echo) = (World::new(), unpaced_sim(), Server::echo());
    let proxy = Proxy::start(&mut world, &sim, echo.port());
    sim.refuse_starts(Some("AccessDeniedException"));
    let refused: Vec<TcpStream> = (0..100).map(|_| proxy.connect("db.internal", echo.port()).1).collect();
    let descriptors = || {
        let path = format!("/proc/{}/fd", proxy.plugin.pid().as_raw_nonzero());
        std::fs::read_dir(path).expect("descriptors").count()
    };
    // They have not closed; before, each was kept for five seconds.
    let begin = std::time::Instant::now();
    eventually("all are closed", || descriptors() < 40);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    refused.iter().for_each(|stream| _ = stream.shutdown(Shutdown::Both));
    proxy.end();
}

/// Longer than a client waits in the proxy.
const CLIENT_PATIENCE: Duration = Duration::from_secs(90);
