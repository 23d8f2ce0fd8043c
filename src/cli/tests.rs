use proptest::prelude::*;

use super::*;

const RESPONSE: &str = r#"{"SessionId":"s-1","StreamUrl":"wss://host/x","TokenValue":"very-secret"}"#;

fn parse_words(words: &[&str]) -> Result<Invocation, CliError> {
    let args = ["session-manager-plugin"].iter().chain(words).map(OsString::from);
    parse(args, |_| panic!("no variable was to be taken"))
}

fn start(words: &[&str]) -> StartSession {
    match parse_words(words) {
        Ok(Invocation::StartSession(start)) => *start,
        other => panic!("{other:?}"),
    }
}

fn start_error(response: &str) -> CliError {
    parse_words(&[response, "eu-west-1", "StartSession", "", "{}", ""]).unwrap_err()
}

#[test]
fn without_words_or_with_few() {
    assert!(matches!(parse_words(&[]), Ok(Invocation::Installed)));
    assert!(matches!(parse_words(&["--version"]), Ok(Invocation::Version)));
    assert!(matches!(parse_words(&["--help"]), Ok(Invocation::Help)));
    assert!(matches!(parse_words(&["-h"]), Ok(Invocation::Help)));
    for words in [&["--version", "x"][..], &["--help", "x"], &["version"], &[""], &[RESPONSE, "eu-west-1"]] {
        match parse_words(words) {
            Ok(Invocation::UnknownOperation(word)) if words[0] == RESPONSE => assert_eq!(word, "{...}"),
            Ok(Invocation::UnknownOperation(word)) => assert_eq!(word, words[0]),
            other => panic!("{words:?}: {other:?}"),
        }
    }
    assert!(matches!(parse(std::iter::empty(), |_| None), Ok(Invocation::Installed)));
}

#[test]
fn the_normal_call() {
    let request = r#"{"Target":"i-0123456789abcdef0","DocumentName":"AWS-StartSSHSession"}"#;
    let words =
        [RESPONSE, "eu-west-1", "StartSession", "work", request, "https://ssm.eu-west-1.amazonaws.com"];
    let mut more = words.to_vec();
    more.push("ignored");
    for words in [&words[..], &more] {
        let start = start(words);
        assert_eq!(start.session_id, "s-1");
        assert_eq!(start.stream_url, "wss://host/x");
        assert_eq!(start.token.expose(), "very-secret");
        assert_eq!(start.region, "eu-west-1");
        assert_eq!(start.profile.as_deref(), Some("work"));
        assert_eq!(start.target.as_deref(), Some("i-0123456789abcdef0"));
        assert_eq!(start.request.as_ref().unwrap()["DocumentName"], "AWS-StartSSHSession");
        assert_eq!(start.endpoint.as_deref(), Some("https://ssm.eu-west-1.amazonaws.com"));
        assert!(!start.legacy);
    }
}

/// PowerShell 7.3 and later pass on the backslashes of AWS's documented ProxyCommand for SageMaker.
#[test]
fn backslashes_before_quotes() {
    let escaped = |text: &str| text.replace('"', "\\\"");
    let request = r#"{"Target":"i-1","DocumentName":"AWS-StartSSHSession"}"#;
    let start = start(&[&escaped(RESPONSE), "eu-west-1", "StartSession", "", &escaped(request), ""]);
    assert_eq!((start.session_id.as_str(), start.stream_url.as_str()), ("s-1", "wss://host/x"));
    assert_eq!(start.token.expose(), "very-secret");
    assert_eq!(start.target.as_deref(), Some("i-1"));
    assert!(start.response_is_argument);
}

#[test]
fn fewer_words_than_six() {
    let legacy = start(&[RESPONSE, "eu-west-1", "StartSession"]);
    assert!(legacy.legacy && legacy.profile.is_none() && legacy.request.is_none());
    // VS Code toolkits.
    let four = start(&[RESPONSE, "eu-west-1", "StartSession", ""]);
    assert!(!four.legacy && four.profile.is_none() && four.target.is_none() && four.endpoint.is_none());
    let five = start(&[RESPONSE, "eu-west-1", "StartSession", "work", r#"{"target":"i-1"}"#]);
    assert_eq!(five.target.as_deref(), Some("i-1"));
}

/// smp#32: the official plugin panics at some of these.
#[test]
fn a_request_that_cannot_be_read_is_ignored() {
    for request in ["", "{", "null", "[]", "7", r#"{"Target":7}"#, r#"{"Target":null}"#, "{}"] {
        assert_eq!(start(&[RESPONSE, "r", "StartSession", "", request, ""]).target, None, "{request}");
    }
}

#[test]
fn another_operation() {
    for words in
        [&["{}", "r", "startsession"][..], &[RESPONSE, "r", "ResumeSession", "", "{}", ""], &["", "", ""]]
    {
        assert!(matches!(parse_words(words), Ok(Invocation::InvalidOperation)), "{words:?}");
    }
}

/// `aws ecs execute-command` writes small first letters.
#[test]
fn keys_in_any_case_and_unknown_ones() {
    for response in [
        r#"{"sessionId":"s-1","streamUrl":"wss://host/x","tokenValue":"very-secret"}"#,
        r#"{"SESSIONID":"s-1","streamurl":"wss://host/x","tokenVALUE":"very-secret"}"#,
        r#"{"ResponseMetadata":{"HTTPHeaders":{"a":[1,null]}},"x":null,"SessionId":null,"SessionId":"s-1",
            "StreamUrl":"old","StreamUrl":"wss://host/x","StreamUrl":null,"TokenValue":"very\u002dsecret"}"#,
    ] {
        let start = start(&[response, "r", "StartSession"]);
        assert_eq!(start.session_id, "s-1");
        assert_eq!(start.stream_url, "wss://host/x");
        assert_eq!(start.token.expose(), "very-secret");
    }
}

#[test]
fn what_is_wrong_with_the_response() {
    use CliError::{ControlCharacters, MissingField, NotAString};
    for (response, expected) in [
        ("{}", MissingField("TokenValue")),
        (r#"{"StreamUrl":"u","TokenValue":"t"}"#, MissingField("SessionId")),
        (r#"{"SessionId":"","StreamUrl":"u","TokenValue":"t"}"#, MissingField("SessionId")),
        (r#"{"SessionId":"s","StreamUrl":null,"TokenValue":"t"}"#, MissingField("StreamUrl")),
        (
            r#"{"SessionId":"s\nPort 1 opened","StreamUrl":"u","TokenValue":"t"}"#,
            ControlCharacters("SessionId"),
        ),
        (r#"{"SessionId":"s","StreamUrl":"u","TokenValue":{"very-secret":1}}"#, NotAString("TokenValue")),
        (r#"{"SessionId":["very-secret"],"StreamUrl":"u","TokenValue":"t"}"#, NotAString("SessionId")),
        (r#"{"SessionId":1.5,"StreamUrl":true,"TokenValue":"t"}"#, NotAString("SessionId")),
    ] {
        assert_eq!(start_error(response), expected, "{response}");
    }
    for response in
        ["", "very-secret", "\"very-secret\"", "[\"very-secret\"]", "null", r#"{"TokenValue":"very-secret""#]
    {
        assert!(matches!(start_error(response), CliError::NotJson { .. }), "{response}");
    }
}

#[test]
fn the_reasons_are_plain_and_hold_no_secret() {
    assert_eq!(start_error("{}").to_string(), "the StartSession response has no TokenValue");
    let cut = start_error(r#"{"TokenValue":"very-secret""#).to_string();
    assert_eq!(cut, "the StartSession response is not a JSON object (line 1, column 27)");
    let response = r#"{"SessionId":"s-1","StreamUrl":"wss://host/x?X-Amz-Signature=very-secret","TokenValue":"very-secret"}"#;
    let request = r#"{"Parameters":{"command":["very-secret"]}}"#;
    let debug = format!("{:?}", start(&[response, "r", "StartSession", "", request]));
    assert!(debug.contains("wss://host/x") && !debug.contains("very-secret"), "{debug}");
    assert_eq!(Secret::new("very-secret".to_owned()).to_string(), "[redacted]");
}

#[test]
fn the_response_in_a_variable_is_taken() {
    let words = |operation: &'static str| {
        ["plugin", "AWS_SSM_START_SESSION_RESPONSE_7", "r", operation].into_iter().map(OsString::from)
    };
    let mut taken = Vec::new();
    let mut take = |name: &str| {
        taken.push(name.to_owned());
        Some(OsString::from(RESPONSE))
    };
    assert!(matches!(parse(words("StartSession"), &mut take), Ok(Invocation::StartSession(_))));
    assert!(matches!(parse(words("Other"), &mut take), Ok(Invocation::InvalidOperation)));
    assert_eq!(taken, ["AWS_SSM_START_SESSION_RESPONSE_7"; 2]);

    let not_set = CliError::ResponseNotSet("AWS_SSM_START_SESSION_RESPONSE_7".to_owned());
    assert_eq!(parse(words("StartSession"), |_| None).unwrap_err(), not_set);
    assert_eq!(parse(words("StartSession"), |_| Some(OsString::new())).unwrap_err(), not_set);
}

#[cfg(unix)]
#[test]
fn words_that_are_not_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(b"a\xff".to_vec());
    let word = |text: &str| OsString::from(text);
    let with = |args: Vec<OsString>| parse(args.into_iter(), |_| None);
    assert!(matches!(
        with(vec![word("p"), bad()]),
        Ok(Invocation::UnknownOperation(word)) if word == "a\u{fffd}"
    ));
    let args = vec![word("p"), word(RESPONSE), word("r"), word("StartSession"), bad()];
    assert_eq!(with(args).unwrap_err(), CliError::NotUtf8(4));
    assert_eq!(CliError::NotUtf8(4).to_string(), "argument 4 is not valid UTF-8");
    let args = [word("p"), word("AWS_SSM_START_SESSION_RESPONSE"), word("r"), word("StartSession")];
    assert_eq!(parse(args.into_iter(), |_| Some(bad())).unwrap_err(), CliError::NotUtf8(1));
}

proptest! {
    #[test]
    fn any_words_have_an_answer(
        words in proptest::collection::vec(prop_oneof![
            any::<String>(),
            Just("StartSession".to_owned()),
            Just(RESPONSE.to_owned()),
            Just("AWS_SSM_START_SESSION_RESPONSE".to_owned()),
            "[{}\\[\\]\":,a-zA-Z0-9]{0,40}",
        ], 0..9),
        variable in proptest::option::of(any::<String>()),
    ) {
        let args = std::iter::once(OsString::from("plugin")).chain(words.iter().map(OsString::from));
        let result = parse(args, |_| variable.clone().map(OsString::from));
        if let Err(err) = result {
            prop_assert!(!err.to_string().contains("very-secret"));
        }
    }
}
