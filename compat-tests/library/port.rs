//! Connections of a port: its listener and its streams.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use session_manager_plugin::forward::{Event, Events, ForwardStream};
use session_manager_plugin::{Command, Error, Forward};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{await_event, block_on, builder, with_port};
use crate::harness::PATIENCE;
use crate::harness::net::{Server, await_byte, connect, echo_through, random_bytes};
use crate::harness::sim::{assert_all_ended, sim, unpaced_sim};

/// The example before used the smux session alone, which one write held up.
#[test]
fn one_reader_that_stalls_stops_no_other() {
    let sim = unpaced_sim();
    let server = Server::start(|mut stream| {
        let mut first = [0];
        if stream.read_exact(&mut first).is_err() {
            return;
        }
        if first == *b"f" {
            let _ = stream.write_all(&vec![0; 16 << 20]);
        } else {
            let _ = stream.write_all(&first);
        }
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    with_port(builder(&sim, server.port()), |_, port| {
        let mut stalled = connect(port);
        stalled.write_all(b"f").expect("write");
        await_byte(&stalled);
        // All that fits in the system's buffers has come when more was read than they hold.
        let is_held = sim.wait_for(PATIENCE, |sessions| sessions[0].down.bytes > 12 << 20);
        assert!(is_held, "{:?}", sim.sessions());
        assert_eq!(echo_through(port, b"e"), b"e");
    });
    assert_all_ended(&sim);
}

/// A half-closed connection is closed altogether by the agent, so its end has to be held back.
#[test]
fn an_answer_after_half_close_arrives() {
    let (sim, server) = (sim(), Server::late_answer());
    with_port(builder(&sim, server.port()), |forward, port| {
        let mut client = connect(port);
        client.write_all(b"request").expect("write");
        client.shutdown(Shutdown::Write).expect("shutdown");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("read");
        assert_eq!(answer, "the answer");
        let answer = block_on(async {
            let mut stream = forward.connect().await.expect("a stream");
            stream.write_all(b"request").await.expect("write");
            stream.shutdown().await.expect("shutdown");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        });
        assert_eq!(answer.expect("read"), "the answer", "without a socket");
    });
    assert_all_ended(&sim);
}

#[test]
fn streams_need_no_listener() {
    let (sim, echo) = (unpaced_sim(), Server::echo());
    let forward = block_on(builder(&sim, echo.port()).start()).expect("a port");
    assert_eq!(forward.local_addr(), None);
    let sent = random_bytes(1, 1 << 20);
    let received = block_on(async {
        let (mut reader, mut writer) = tokio::io::split(forward.connect().await.expect("a stream"));
        let mut received = vec![0; sent.len()];
        let (written, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received));
        written.expect("write");
        read.map(|_| received)
    });
    assert!(received.expect("read") == sent);
    block_on(forward.shutdown());
    assert_all_ended(&sim);
}

#[test]
fn a_destination_that_refuses_ends_the_stream_and_is_an_event() {
    let (sim, free) = (sim(), crate::harness::net::FreePort::new());
    let forward = block_on(builder(&sim, free.number()).start()).expect("a port");
    let mut events = forward.events();
    let read = block_on(async {
        let mut stream = forward.connect().await.expect("a stream");
        stream.write_all(b"x").await.expect("write");
        stream.read_to_end(&mut Vec::new()).await
    });
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    await_event(&mut events, |event| *event == Event::DestinationRefused);
    block_on(forward.shutdown());
}

#[test]
fn the_first_caller_gets_all_events() {
    let sim = sim();
    // It closes first, which ends the connection at once.
    let server = Server::start(|mut stream| {
        let mut four = [0; 4];
        if stream.read_exact(&mut four).is_ok() {
            let _ = stream.write_all(&four);
        }
    });
    with_port(builder(&sim, server.port()), |forward, port| {
        assert_eq!(echo_through(port, b"four"), b"four");
        let mut events = forward.events();
        let id = sim.sessions()[0].id.clone();
        let started = await_event(&mut events, |_| true);
        assert!(matches!(&started, Event::SessionStarted { session, .. } if *session == id), "{started:?}");
        let opened = await_event(&mut events, |_| true);
        assert!(matches!(opened, Event::ConnectionOpened { connection: 1, .. }), "{opened:?}");
        let closed = await_event(&mut events, |event| matches!(event, Event::ConnectionClosed { .. }));
        let Event::ConnectionClosed { connection, sent, received, .. } = closed else { unreachable!() };
        assert_eq!((connection, sent, received), (1, 4, 4));
        let mut later = forward.events();
        sim.cut(&id);
        await_event(&mut later, |event| matches!(event, Event::Lost { .. }));
        await_event(&mut later, |event| *event == Event::Resumed);
        assert_eq!(echo_through(port, b"more"), b"more");
    });
}

/// Several sessions behind one port, and all are ended.
#[test]
fn connections_share_several_sessions() {
    let (sim, echo) = (sim(), Server::echo());
    with_port(builder(&sim, echo.port()).sessions(3), |_, port| {
        let is_up = |sessions: &[ssm_sim::SessionReport]| {
            sessions.iter().filter(|session| session.down.messages > 1).count() == 3
        };
        assert!(sim.wait_for(PATIENCE, is_up), "{:?}", sim.sessions());
        let clients: Vec<_> = (0..12)
            .map(|seed| {
                let bytes = random_bytes(seed, 30_000);
                std::thread::spawn(move || assert!(echo_through(port, &bytes) == bytes, "client {seed}"))
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("client"));
    });
    assert_eq!(sim.sessions().len(), 3);
    assert_all_ended(&sim);
}

#[test]
fn two_ports_in_one_process_and_in_a_runtime_of_several_threads() {
    let (sim, other_sim) = (sim(), sim());
    let (echo, greeting) = (Server::echo(), Server::greeting("hello"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("runtime");
    let first = runtime.spawn(builder(&sim, echo.port()).start());
    let second = runtime.spawn(builder(&other_sim, greeting.port()).start());
    let start = async { (first.await.expect("no panic"), second.await.expect("no panic")) };
    let (first, second) = runtime.block_on(start);
    let (first, second) = (first.expect("a port"), std::sync::Arc::new(second.expect("a port")));
    let shared = std::sync::Arc::clone(&second);
    let greeted = runtime.spawn(async move {
        let mut text = String::new();
        shared.connect().await.expect("a stream").read_to_string(&mut text).await.map(|_| text)
    });
    let echoed = runtime.spawn(async move {
        let mut stream = first.connect().await.expect("a stream");
        stream.write_all(b"x").await.expect("write");
        let echo = stream.read_u8().await;
        first.shutdown().await;
        echo
    });
    let (greeted, echoed) = runtime.block_on(async { (greeted.await, echoed.await) });
    assert_eq!(greeted.expect("no panic").expect("read"), "hello");
    assert_eq!(echoed.expect("no panic").expect("read"), b'x');
    drop(second);
    assert_all_ended(&sim);
    assert_all_ended(&other_sim);
}

/// The types cross threads, and so do the futures of their methods.
#[test]
fn all_types_and_futures_are_send() {
    fn is_send<T: Send + 'static>() {}
    fn is_sync<T: Sync>() {}
    fn future<T: Send>(_: fn() -> T) {}
    is_send::<Forward>();
    is_sync::<Forward>();
    is_send::<ForwardStream>();
    is_send::<Events>();
    is_send::<Command>();
    is_send::<Error>();
    is_sync::<Error>();
    future(|| async {
        let forward = Forward::builder("i-1").start().await?;
        drop(forward.connect().await);
        drop(forward.events().next().await);
        drop(forward.closed().await);
        forward.shutdown().await;
        let mut command = Command::builder("i-1", "true").start()?;
        command.next().await;
        command.wait().await?;
        Command::builder("i-1", "true").run().await
    });
}
