//! Replies to the clients of a proxy.

use super::*;

#[test]
fn a_client_is_answered_when_it_is_known_how() {
    let mut world = World::proxied();
    world.add_ready();
    let refused = world.connect();
    assert_eq!(world.replies(refused), []);
    world.refuse(refused);
    assert_eq!(world.replies(refused), [Reply::HostUnreachable]);
    assert!(world.is_closed(refused));
    // Nothing tells that a destination is there which waits for the client, except that no refusal comes.
    let patient = world.connect();
    assert_eq!(world.replies(patient), []);
    world.pass(2 * SECOND);
    assert_eq!(world.replies(patient), [Reply::Succeeded]);
    let greeted = world.connect();
    world.write(greeted, b"220 hello");
    assert_eq!(world.replies(greeted), [Reply::Succeeded]);
    assert_eq!(world.clients[&greeted].received, b"220 hello");
    let next = world.connect();
    assert_eq!(world.replies(next), [Reply::Succeeded], "the destination is there");
}

#[test]
fn an_end_without_a_refusal_is_an_end() {
    let mut world = World::proxied();
    world.add_ready();
    let short = world.connect();
    world.finish(short);
    assert_eq!(world.replies(short), [Reply::Succeeded]);
    // Nor is it another's refusal, however long ago that was.
    let mut world = World::proxied();
    world.add_ready();
    let refused = world.connect();
    world.refuse(refused);
    let short = world.connect();
    world.finish(short);
    assert_eq!(world.replies(short), [Reply::Succeeded]);
}

/// An agent ends a session to an address that it may not forward to.
#[test]
fn clients_are_refused_for_a_while_when_the_session_ends_by_itself() {
    let mut world = World::proxied();
    let begin = world.now;
    let (mut attempts, mut refused) = (0, 0);
    while world.now < begin + 60 * SECOND {
        let client = world.connect();
        attempts += 1;
        if !world.asked.is_empty() {
            let session = world.succeed();
            world.close(session, "Forwarding to IP address 10.0.0.2 is forbidden.");
        }
        refused += usize::from(world.replies(client) == [Reply::HostUnreachable]);
        world.pass(SECOND / 5);
    }
    assert_eq!(refused, attempts);
    assert!(attempts > 100 && world.starts.len() < 20, "{} starts for {attempts}", world.starts.len());
}

#[test]
fn clients_without_a_reply_are_refused_when_their_session_ends() {
    let mut world = World::proxied();
    let session = world.add_ready();
    let client = world.connect();
    world.close(session, "");
    assert_eq!(world.replies(client), [Reply::HostUnreachable]);
    assert_eq!(world.clients[&client].end, Some(ClientEnd::Finished), "an orderly end");
}

#[test]
fn a_denied_start_is_the_reply() {
    let mut world = World::proxied();
    let client = world.connect();
    world.fail(ErrorKind::Denied);
    assert_eq!(world.replies(client), [Reply::NotAllowed]);
    let next = world.connect();
    assert_eq!((world.replies(next), world.starts.len()), (&[Reply::NotAllowed][..], 1), "at once");
}
