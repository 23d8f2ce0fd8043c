//! The argument vector and the visible text, byte for byte.

use serde_json::{Value, json};

use crate::harness::api::Started;
use crate::harness::gateway::{Gateway, SESSION, Socket, TOKEN};
use crate::harness::process::{Finished, Running, is_for_windows, run};
use crate::harness::{REGION, TARGET, World, wire};

/// The official version that is reported unless a setting says otherwise.
const OFFICIAL: &str = "1.2.896.0";
const INSTALLED: &str =
    "\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a session.\n\n";

/// A shell that says one line and ends, with this reason.
fn greeting(output: &'static str) -> Gateway {
    Gateway::scripted(move |socket: &mut Socket| {
        let number = socket.data(wire::PAYLOAD_OUTPUT, "hello\r\n");
        socket.acknowledged(number);
        socket.close(output);
    })
}

/// Output of a session with [`greeting`].
fn greeted() -> String {
    format!(
        "\nStarting session with SessionId: {SESSION}\nhello\r\n\n\nExiting session with sessionId: {SESSION}.\n\n"
    )
}

/// The words after the program's name, with a stdin that stays open.
#[track_caller]
fn run_words(words: &[&str]) -> Finished {
    run_open(World::new().plugin().args(words))
}

#[track_caller]
fn run_open(command: &mut std::process::Command) -> Finished {
    let mut running = Running::spawn(command);
    let _stdin = running.take_stdin();
    running.finish()
}

#[track_caller]
fn assert_text(finished: &Finished, expected: &str) {
    assert_eq!(finished.text(), expected, "stderr: {}", finished.errors());
    assert_eq!(finished.status.code(), Some(0));
    assert!(!finished.errors().contains("panic"), "{}", finished.errors());
}

/// One line of failure on stdout, status 0, no token anywhere.
#[track_caller]
fn assert_one_clear_line(finished: &Finished) {
    let text = finished.text();
    assert!(text.starts_with("Cannot perform start session: "), "{text:?}; {}", finished.errors());
    assert_eq!(text.matches('\n').count(), 1, "{text:?}");
    assert!(text.len() > "Cannot perform start session: \n".len(), "no reason: {text:?}");
    assert_eq!(finished.status.code(), Some(0), "the AWS CLI prints the arguments when it is not 0");
    let errors = finished.errors();
    assert!(!errors.contains("panic"), "{errors}");
    assert!(!text.contains(TOKEN) && !errors.contains(TOKEN), "the token is shown: {text}{errors}");
}

#[test]
fn without_arguments_it_reports_that_it_is_installed() {
    assert_text(&run_words(&[]), INSTALLED);
}

#[test]
fn version_satisfies_the_cli() {
    let finished = run_words(&["--version"]);
    finished.assert_ok();
    let text = finished.text();
    let number = text.strip_suffix('\n').expect("a newline at the end");
    let parts: Vec<u32> = number.split('.').map(|part| part.parse().expect("only digits and dots")).collect();
    assert!((1..=4).contains(&parts.len()), "the CLI wants ^\\d+(\\.\\d+){{0,3}}$, not {number}");
    assert!(
        parts > vec![1, 2, 497, 0],
        "at most 1.2.497.0 the CLI puts the token among the arguments: {number}"
    );
    assert!(parts >= vec![1, 2, 764, 0], "below the minimum that AWS supports: {number}");
    assert_eq!(finished.errors(), "");
}

/// The CLI runs it before each session. What takes time is not begun: a runtime needs more descriptors than there are
/// here, a connection a runtime.
#[cfg(unix)]
#[test]
fn version_starts_no_runtime() {
    let with_one_descriptor = |word: &str| {
        let close = (3..10).map(|number| format!("{number}>&- ")).collect::<String>();
        let plugin = crate::harness::plugin();
        let line = format!("exec {close}; ulimit -n 4 && exec '{}' {word}", plugin.display());
        let finished = run(&mut World::new().shell(&line));
        finished.text() + &finished.errors()
    };
    assert_eq!(with_one_descriptor("--version"), format!("{OFFICIAL}\n"));
    let runtime = with_one_descriptor("doctor");
    assert!(runtime.contains("Too many open files"), "the limit has no effect: {runtime}");
}

#[test]
fn help_names_commands_settings_and_this_users_files() {
    let world = World::new();
    let finished = run(world.plugin().arg("--help"));
    finished.assert_ok();
    let text = finished.text();
    let file = match (cfg!(windows), is_for_windows()) {
        (true, _) => world.home().join(r"session-manager-plugin\config.toml").display().to_string(),
        // Wine's users have folders of its own.
        (false, true) => r"AppData\Local\session-manager-plugin\config.toml".to_owned(),
        (false, false) => {
            world.home().join(".config/session-manager-plugin/config.toml").display().to_string()
        }
    };
    for words in ["--man", "  ssh-config ", "SETTINGS: EVERYDAY", "SSM_PLUGIN_RESTART ", "EXAMPLES", &file] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let is_path = |line: &str| line.starts_with("  /") || line.contains(":\\");
    for line in text.lines().filter(|line| !is_path(line)) {
        assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
    }
}

#[test]
fn one_or_two_unknown_words() {
    let expected =
        "\nUnknown operation foo. \nUse session-manager-plugin --version to check the version.\n\n";
    assert_text(&run_words(&["foo"]), expected);
    assert_text(&run_words(&["foo", "bar"]), expected);
}

#[test]
fn another_operation_is_invalid() {
    assert_text(&run_words(&["{}", REGION, "StopSession"]), "Invalid Operation");
    let request = json!({"Target": TARGET}).to_string();
    let words = ["{}", REGION, "StopSession", "", &request, "http://127.0.0.1:1"];
    assert_text(&run_words(&words), "Invalid Operation");
}

#[test]
fn six_words_with_the_answer_in_the_environment() {
    let gateway = greeting("");
    assert_text(&run_open(&mut Started::of(&gateway).command(&World::new())), &greeted());
}

#[test]
fn six_words_with_the_answer_as_json() {
    let gateway = greeting("");
    assert_text(&run_open(&mut Started::of(&gateway).command_with_json(&World::new())), &greeted());
}

/// AWS's documented ProxyCommand for SageMaker escapes the quotes; PowerShell 7.3 and later pass the backslashes on.
#[test]
fn sagemaker_proxy_command_from_powershell_7_3() {
    let gateway = greeting("");
    let (started, world) = (Started::of(&gateway), World::new());
    let escaped = |value: &Value| value.to_string().replace('"', "\\\"");
    let mut command = world.plugin();
    command.args([&escaped(&started.response), REGION, "StartSession", ""]);
    command.args([&escaped(&started.request), &started.endpoint]);
    assert_text(&run_open(&mut command), &greeted());
}

#[test]
fn any_variable_that_begins_with_the_name_is_read() {
    let gateway = greeting("");
    let (started, world) = (Started::of(&gateway), World::new());
    let mut command = world.plugin();
    command.env("AWS_SSM_START_SESSION_RESPONSE_7", started.response.to_string());
    command.args(["AWS_SSM_START_SESSION_RESPONSE_7", REGION, "StartSession", ""]);
    command.args([&started.request.to_string(), &started.endpoint]);
    assert_text(&run_open(&mut command), &greeted());
}

#[test]
fn three_words_are_the_legacy_form() {
    let gateway = greeting("");
    let response = gateway.response().to_string();
    assert_text(&run_words(&[&response, REGION, "StartSession"]), &greeted());
}

#[test]
fn four_and_five_words_work_without_the_rest() {
    let gateway = greeting("");
    let response = gateway.response().to_string();
    assert_text(&run_words(&[&response, REGION, "StartSession", ""]), &greeted());
    let request = json!({"Target": TARGET}).to_string();
    assert_text(&run_words(&[&response, REGION, "StartSession", "", &request]), &greeted());
}

#[test]
fn more_than_six_words_are_ignored() {
    let gateway = greeting("");
    let world = World::new();
    assert_text(&run_open(Started::of(&gateway).command(&world).arg("one more")), &greeted());
}

#[test]
fn keys_in_lower_camel_case_as_from_ecs() {
    let gateway = greeting("");
    let mut started = Started::of(&gateway);
    let old = started.response.clone();
    started.response = json!({
        "sessionId": old["SessionId"], "streamUrl": old["StreamUrl"], "tokenValue": old["TokenValue"],
    });
    assert_text(&run_open(&mut started.command_with_json(&World::new())), &greeted());
}

#[test]
fn unknown_keys_and_nulls_are_ignored() {
    let gateway = greeting("");
    let mut started = Started::of(&gateway);
    started.response["ResponseMetadata"] = json!({"RequestId": "x", "RetryAttempts": 0});
    started.response["Something"] = Value::Null;
    started.request["Parameters"] = Value::Null;
    assert_text(&run_open(&mut started.command(&World::new())), &greeted());
}

#[test]
fn the_reason_of_the_end_is_shown() {
    let gateway = greeting("ended by the administrator");
    let expected = format!(
        "\nStarting session with SessionId: {SESSION}\nhello\r\n\n\nSessionId: {SESSION} : ended by the administrator\n\n"
    );
    assert_text(&run_open(&mut Started::of(&gateway).command(&World::new())), &expected);
}

#[test]
fn bad_json_is_one_clear_line() {
    for response in ["{", "", "[]", "null", "42", "{\"SessionId\": \"x\"", "\u{fffd}\u{1}", "nonsense"] {
        let request = json!({"Target": TARGET}).to_string();
        let words = [response, REGION, "StartSession", "", &request, "http://127.0.0.1:1"];
        assert_one_clear_line(&run_words(&words));
    }
}

#[test]
fn missing_fields_are_one_clear_line() {
    let whole = json!({"SessionId": SESSION, "TokenValue": TOKEN, "StreamUrl": "ws://127.0.0.1:1/"});
    for field in ["SessionId", "TokenValue", "StreamUrl"] {
        for broken in [None, Some(Value::Null), Some(json!(7)), Some(json!(["x"]))] {
            let mut response = whole.clone();
            let fields = response.as_object_mut().expect("an object");
            match broken {
                None => drop(fields.remove(field)),
                Some(value) => drop(fields.insert(field.to_owned(), value)),
            }
            let request = json!({"Target": TARGET}).to_string();
            let words = [&response.to_string(), REGION, "StartSession", "", &request, "http://127.0.0.1:1"];
            assert_one_clear_line(&run_words(&words));
        }
    }
}

#[test]
fn an_unset_variable_is_one_clear_line() {
    let request = json!({"Target": TARGET}).to_string();
    let words =
        ["AWS_SSM_START_SESSION_RESPONSE", REGION, "StartSession", "", &request, "http://127.0.0.1:1"];
    assert_one_clear_line(&run_words(&words));
}

#[test]
fn an_empty_profile_and_endpoint_are_none() {
    let gateway = greeting("");
    let (started, world) = (Started::of(&gateway), World::new());
    let mut command = world.plugin();
    let request = started.request.to_string();
    command.args([&started.response.to_string(), REGION, "StartSession", "", &request, ""]);
    assert_text(&run_open(&mut command), &greeted());
}

/// The form of the GameLift Streams guide: the AWS CLI's whole output, as it prints it, and a dual-stack endpoint.
#[test]
fn the_whole_output_of_the_cli_is_a_response() {
    let gateway = greeting("");
    let (started, world) = (Started::of(&gateway), World::new());
    let response = format!("\n{:#}\n", started.response);
    let request = json!({"Target": TARGET}).to_string();
    let mut command = world.plugin();
    let endpoint = format!("https://ssm.{REGION}.api.aws");
    command.args([&response, REGION, "StartSession", "", &request, &endpoint]);
    assert_text(&run_open(&mut command), &greeted());
}

#[test]
fn the_reported_version_is_used_everywhere() {
    let sim = crate::harness::sim::sim();
    // The simulator runs it on this system.
    let command = if cfg!(windows) { "cmd /c exit" } else { "true" };
    for (setting, expected) in [
        ("1.3.0.7", "1.3.0.7"),
        (" 2.0.0.1 ", "2.0.0.1"),
        ("1.2.3.4.5", OFFICIAL),
        ("1.x", OFFICIAL),
        ("", OFFICIAL),
    ] {
        let mut world = World::new();
        world.set("SSM_PLUGIN_REPORTED_VERSION", setting);
        let finished = run(world.plugin().arg("--version"));
        assert_text(&finished, &format!("{expected}\n"));
        assert_eq!(finished.errors(), "");
        let started = Started::at(
            &sim.endpoint(),
            Some("AWS-StartNonInteractiveCommand"),
            json!({"command": [command], "separateOutputStream": ["true"]}),
        );
        let finished = run(&mut started.command(&world));
        finished.assert_ok();
        assert!(finished.text().contains("EXIT_CODE: 0"), "{}", finished.text());
        let report = sim.session(started.id()).expect("the session");
        assert_eq!(report.opens[0].client_version, expected, "{setting:?}");
        let is_bad = expected == OFFICIAL && !setting.is_empty();
        let line = format!(
            "SSM_PLUGIN_REPORTED_VERSION={setting:?}: the value must be four numbers separated by dots"
        );
        assert_eq!(finished.errors().contains(&line), is_bad, "{}", finished.errors());
    }
}

#[test]
fn a_bad_request_never_panics() {
    // The official plugin panics without a Target; the session itself needs none.
    for request in ["{}", "{", "[]", "null", "{\"Target\":null}", "{\"Target\":7}", ""] {
        let gateway = greeting("");
        let (started, world) = (Started::of(&gateway), World::new());
        let mut command = world.plugin();
        command.args([&started.response.to_string(), REGION, "StartSession", "", request, &started.endpoint]);
        let finished = run_open(&mut command);
        finished.assert_ok();
        let text = finished.text();
        let failed = text.starts_with("Cannot perform start session: ") && text.matches('\n').count() == 1;
        assert!(failed || text == greeted(), "for {request:?}: {text:?}");
    }
}

#[test]
fn a_stream_url_of_a_stranger_is_refused() {
    for url in [
        "wss://example.com/v1/data-channel/x",
        "wss://a1b2c3d4e5.execute-api.us-east-1.amazonaws.com/v1/data-channel/x",
        "wss://ssmmessages.s3.amazonaws.com/v1/data-channel/x",
        "ws://example.com/",
        "http://127.0.0.1:1/",
        "::",
        "",
    ] {
        let response = json!({"SessionId": SESSION, "TokenValue": TOKEN, "StreamUrl": url}).to_string();
        let request = json!({"Target": TARGET}).to_string();
        let finished = run(World::new().plugin().args([&response, REGION, "StartSession", "", &request, ""]));
        finished.assert_ok();
        let text = finished.text();
        assert!(text.contains("Cannot perform start session: "), "for {url:?}: {text:?}");
        if url.starts_with("wss:") {
            assert!(text.contains("which is not a Session Manager endpoint of AWS"), "for {url:?}: {text:?}");
        }
        assert!(!text.contains(TOKEN) && !finished.errors().contains(TOKEN), "the token is shown");
    }
}
