use super::*;
use crate::{Faults, SessionState, Way};

async fn shell(sim: &Sim) -> (Value, Client) {
    let answer = start_session(sim, None, json!({})).await;
    let mut client = Client::open(&answer).await;
    client.output("").await;
    (answer, client)
}

#[tokio::test]
async fn too_many_messages_are_cut_off_and_the_session_ends_soon() {
    let sim = start(Config { message_limit: Some(100), ..Config::default() });
    let (answer, mut client) = shell(&sim).await;
    for _ in 0..200 {
        client.data(1, b" ").await.expect("200 in two seconds are allowed");
    }
    until("counted", || report(&sim, &answer).up.messages == 200).await;
    assert!(!report(&sim, &answer).limit_exceeded);
    client.data(1, b" ").await.expect("sends");
    assert_eq!(client.end().await, Ended::Close(1000, "Bye".to_owned()));
    let over = report(&sim, &answer);
    assert!(over.limit_exceeded && over.up.peak_2s == 201, "{over:?}");
    until("over", || report(&sim, &answer).state == SessionState::Ended).await;
    assert_eq!(resume(&sim, id(&answer)).await.get("TokenValue"), None);
}

#[tokio::test]
async fn without_a_limit_nothing_is_cut() {
    let sim = start(Config { message_limit: None, ..Config::default() });
    let (answer, mut client) = shell(&sim).await;
    for _ in 0..2500 {
        client.data(3, br#"{"cols":80,"rows":24}"#).await.expect("sends");
    }
    until("counted", || report(&sim, &answer).up.messages == 2500).await;
    assert!(report(&sim, &answer).up.peak_2s > 2000 && !report(&sim, &answer).limit_exceeded);
}

#[tokio::test]
async fn what_the_link_loses_does_not_arrive() {
    let sim = start(Config::default());
    let (answer, mut client) = shell(&sim).await;
    until("quiet", || report(&sim, &answer).agent.acks_received == 1).await;
    sim.set_faults(Faults { loss_up: 1.0, ..Faults::default() });
    let lost = client.data(1, b"echo lo''st\n").await.expect("sends");
    until("lost", || report(&sim, &answer).up.lost == 1).await;
    assert_eq!(report(&sim, &answer).agent.messages_up, 0);
    sim.set_faults(Faults { duplicate: 1.0, ..Faults::default() });
    client.socket.send(Message::Binary(lost)).await.expect("sends");
    client.output("lost").await;
    until("twice", || report(&sim, &answer).agent.duplicates_received == 1).await;
    assert_eq!(report(&sim, &answer).up.resends, 1);
}

#[tokio::test]
async fn delay_is_added_both_ways() {
    let delay = Duration::from_millis(60);
    let sim = start(Config { faults: Faults { delay, ..Faults::default() }, ..Config::default() });
    let (_, mut client) = shell(&sim).await;
    let begin = Instant::now();
    client.type_line("echo slow''ly").await;
    client.output("slowly").await;
    assert!(begin.elapsed() >= 2 * delay, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn websockets_are_cut_again_and_again() {
    let faults = Faults { cut_every: Some(Duration::from_millis(100)), ..Faults::default() };
    let sim = start(Config { faults, ..Config::default() });
    let mut answer = start_session(&sim, None, json!({})).await;
    for _ in 0..3 {
        let opened = Instant::now();
        let mut client = Client::open(&answer).await;
        assert_eq!(client.end().await, Ended::Close(1000, "Bye".to_owned()));
        assert!(opened.elapsed() >= Duration::from_millis(90), "{:?}", opened.elapsed());
        answer = resume(&sim, id(&answer)).await;
    }
    sim.set_faults(Faults::default());
    let mut client = Client::open(&answer).await;
    client.type_line("echo al''ive").await;
    client.output("alive").await;
}

#[tokio::test]
async fn an_outage_takes_everything_away_but_the_controls() {
    let sim = start(Config::default());
    let (answer, mut client) = shell(&sim).await;
    sim.outage(Duration::from_secs(1));
    assert_eq!(client.end().await, Ended::Broken);
    let mut tcp = TcpStream::connect(("127.0.0.1", sim.port())).await.expect("connects");
    let _ = tcp.write_all(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut got = Vec::new();
    let read = tcp.read_to_end(&mut got).await;
    assert!(read.is_err() && got.is_empty(), "{read:?}");
    assert_eq!(http(&sim, "GET /sim/sessions HTTP/1.1", "").await.0, 200);
    until("back", || !sim.service_in_outage()).await;
    let mut client = Client::open(&resume(&sim, id(&answer)).await).await;
    client.type_line("exit").await;
    client.frame_of("channel_closed").await;
}

#[tokio::test]
async fn a_stalled_link_holds_frames_and_loses_none() {
    let sim = start(Config::default());
    let (answer, mut client) = shell(&sim).await;
    let stall = Duration::from_millis(200);
    let begin = Instant::now();
    sim.stall(id(&answer), Way::Up, stall);
    client.type_line("echo la''ter").await;
    client.output("later").await;
    assert!(begin.elapsed() >= stall, "{:?}", begin.elapsed());
    let begin = Instant::now();
    sim.stall(id(&answer), Way::Down, stall);
    client.type_line("echo ag''ain").await;
    client.output("again").await;
    assert!(begin.elapsed() >= stall, "{:?}", begin.elapsed());
}
