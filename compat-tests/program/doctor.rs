//! `doctor`, with each thing that goes wrong provoked.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use ssm_sim::{Config, Credentials, Instance, KmsOptions, PingStatus, Sim};

use crate::harness::net::{FreePort, Server};
use crate::harness::process::{Finished, Running, run};
use crate::harness::pty::Pty;
use crate::harness::sim::{sim, start};
use crate::harness::{TARGET, World, named_pipe};

/// A world where all is well: the simulator is AWS.
fn world(sim: &Sim) -> World {
    let mut world = World::new();
    world.set("AWS_ENDPOINT_URL", &sim.endpoint());
    let script = "#!/bin/sh\necho aws-cli/2.31.0 Python/3.13.7\n";
    install(&world, "aws", script);
    world
}

fn install(world: &World, name: &str, script: &str) {
    let path = world.path(&format!("bin/{name}"));
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, script).expect("write a program");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, executable).expect("make it executable");
}

fn channel(sim: &Sim) -> String {
    format!("ws://127.0.0.1:{}/v1/data-channel/doctor?role=publish_subscribe", sim.port())
}

fn doctor(world: &World, words: &[&str]) -> (Finished, Value) {
    let finished = run(world.plugin().args(["doctor", "--json"]).args(words));
    let report = serde_json::from_slice(&finished.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {}{}", finished.text(), finished.errors()));
    (finished, report)
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut checks = report["checks"].as_array().expect("checks").iter();
    checks.find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

/// The check has ended so, and says these words.
#[track_caller]
fn assert_check(report: &Value, name: &str, status: &str, words: &str) {
    let check = check(report, name);
    assert_eq!(check["status"], status, "{check:#}");
    let text = format!(
        "{} {}",
        check["found"].as_str().unwrap_or_default(),
        check["advice"].as_str().unwrap_or_default()
    );
    assert!(text.contains(words), "{words:?} is not in {text:?}");
    assert_eq!(check["advice"].is_string(), matches!(status, "warning" | "failure"), "what to do: {check:#}");
}

#[test]
fn all_is_well() {
    let sim = sim();
    let world = world(&sim);
    let (finished, report) = doctor(&world, &["--url", &channel(&sim)]);
    assert_eq!(finished.status.code(), Some(0), "{report:#}");
    assert_eq!((&report["failures"], &report["warnings"]), (&0.into(), &0.into()), "{report:#}");
    assert_check(&report, "plugin", "ok", "this program");
    assert_check(&report, "aws-cli", "ok", "aws-cli/2.31.0");
    assert_check(&report, "region", "ok", "us-east-1, from AWS_DEFAULT_REGION");
    assert_check(
        &report,
        "credentials",
        "ok",
        "AWS_ACCESS_KEY_ID in the environment; long-lived access key AKIA...MPLE; arn:aws:iam::123456789012:user/sim",
    );
    assert_check(&report, "clock", "ok", "");
    assert_check(&report, "websocket", "ok", "127.0.0.1");
    assert_check(&report, "terminal", "skipped", "");
    assert!(!finished.text().contains("wJalrXUtnFEMI"), "the secret is shown");
    assert_eq!(finished.errors(), "");

    let text = run(world.plugin().args(["doctor", "--url", &channel(&sim)])).text();
    assert!(text.contains("\nok       region       us-east-1"), "{text}");
    assert!(text.ends_with("\nno problems found (0 failures, 0 warnings)\n"), "{text}");
    assert!(sim.sessions().is_empty(), "it starts no session");
}

#[test]
fn another_plugin_is_found_first_or_none() {
    let sim = sim();
    let mut world = world(&sim);
    install(&world, "session-manager-plugin", "#!/bin/sh\necho 1.2.707.0\n");
    let url = channel(&sim);
    let (finished, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "plugin", "warning", "a different program, version 1.2.707.0");
    assert_eq!(finished.status.code(), Some(0), "a warning is no failure");
    install(&world, "session-manager-plugin", "#!/bin/sh\nexit 3\n");
    assert_check(&doctor(&world, &["--url", &url]).1, "plugin", "warning", "fails to run");
    world.set("PATH", "/nowhere");
    let (finished, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "plugin", "failure", "session-manager-plugin is not on PATH");
    assert_check(&report, "aws-cli", "warning", "aws is not on PATH");
    assert_eq!(finished.status.code(), Some(1));
}

#[test]
fn an_old_or_broken_cli() {
    let sim = sim();
    let (world, url) = (world(&sim), channel(&sim));
    install(&world, "aws", "#!/bin/sh\necho aws-cli/2.9.19 Python/3.11.2\n");
    assert_check(
        &doctor(&world, &["--url", &url]).1,
        "aws-cli",
        "warning",
        "token as a command-line argument",
    );
    // The last of each line that did so, and the first that does not.
    for (version, status) in
        [("1.30.2", "warning"), ("1.30.3", "ok"), ("2.13.36", "warning"), ("2.13.37", "ok")]
    {
        install(&world, "aws", &format!("#!/bin/sh\necho aws-cli/{version} Python/3.11.2\n"));
        assert_check(&doctor(&world, &["--url", &url]).1, "aws-cli", status, version);
    }
    install(&world, "aws", "#!/bin/sh\nexit 1\n");
    assert_check(&doctor(&world, &["--url", &url]).1, "aws-cli", "failure", "cannot be run");
    install(&world, "aws", "#!/bin/sh\nprintf 'something \\033[2Jelse\\n'\n");
    let (finished, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "aws-cli", "warning", "does not look like the AWS CLI");
    assert!(!finished.text().contains('\x1b'));
}

#[test]
fn a_profile_file_that_blocks() {
    let sim = sim();
    let url = channel(&sim);
    for variable in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        let mut world = world(&sim);
        let pipe = world.path("pipe");
        named_pipe(&pipe);
        world.set(variable, &pipe.display().to_string());
        let (finished, report) = doctor(&world, &["--url", &url]);
        assert_eq!(finished.status.code(), Some(1));
        let words = format!("{} (from {variable}) cannot be read: it is not a regular file", pipe.display());
        assert_check(&report, "credentials", "failure", &words);
    }
}

#[test]
fn region_and_profile() {
    let sim = sim();
    let mut world = world(&sim);
    world.set("AWS_DEFAULT_REGION", "");
    let url = channel(&sim);
    let (_, report) = doctor(&world, &[]);
    assert_check(&report, "region", "failure", "set AWS_DEFAULT_REGION");
    assert_check(&report, "websocket", "skipped", "see the region check");
    assert_check(&report, "credentials", "skipped", "cannot be tested without a region");
    assert_eq!(report["failures"], 1, "one cause is one failure: {report:#}");
    assert_check(
        &doctor(&world, &["--region", "eu west", "--url", &url]).1,
        "region",
        "failure",
        "is not a valid region",
    );

    world.set("AWS_REGION", "eu-west-3");
    assert_check(&doctor(&world, &["--url", &url]).1, "region", "ok", "eu-west-3, from AWS_REGION");
    install(&world, "aws", "#!/bin/sh\necho aws-cli/1.46.3 Python/3.11.2\n");
    assert_check(
        &doctor(&world, &["--url", &url]).1,
        "region",
        "warning",
        "which version 1 of the AWS CLI ignores",
    );
    world.set("AWS_REGION", "");

    let dir = world.home().join(".aws");
    std::fs::create_dir(&dir).expect(".aws");
    let config = "[profile work]\nregion = eu-north-1\n[profile login]\nregion = eu-north-1\nsso_session = s\n\
                  sso_account_id = 1\nsso_role_name = r\n[sso-session s]\nsso_start_url = https://127.0.0.1:1\nsso_region = eu-north-1\n";
    std::fs::write(dir.join("config"), config).expect("config");
    let keys = "[work]\naws_access_key_id = AKIAWORKWORKWORKWORK\naws_secret_access_key = secret-of-work\n";
    std::fs::write(dir.join("credentials"), keys).expect("credentials");
    let (finished, report) = doctor(&world, &["--profile", "work", "--url", &url]);
    assert_check(&report, "region", "ok", "eu-north-1, from profile work");
    assert_check(
        &report,
        "credentials",
        "ok",
        "profile work (access keys); long-lived access key AKIA...WORK",
    );
    assert!(!finished.text().contains("secret-of-work"));
    let (_, report) = doctor(&world, &["--profile", "wrok", "--url", &url]);
    assert_check(&report, "credentials", "failure", "--profile names a profile that does not exist: wrok");
    assert_check(
        &doctor(&world, &["--profile", "login", "--url", &url]).1,
        "credentials",
        "failure",
        "aws sso login --profile login",
    );
    world.set("AWS_ACCESS_KEY_ID", "");
    world.set("AWS_SECRET_ACCESS_KEY", "");
    let (_, report) = doctor(&world, &["--url", &url, "--region", "eu-north-1"]);
    assert_check(&report, "credentials", "failure", "aws configure");
    world.set("SSM_PLUGIN_SKIP_CLIENT_CONFIGURE", "true");
    assert_check(&doctor(&world, &["--url", &url]).1, "credentials", "warning", "aws configure");
}

#[test]
fn a_clock_that_is_off() {
    let sim = sim();
    let mut world = world(&sim);
    let service = Server::start(|mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 1024]);
        let answer = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes());
    });
    world.set("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", service.port()));
    let (finished, report) = doctor(&world, &["--url", &channel(&sim)]);
    assert_check(&report, "clock", "failure", "AWS rejects its signatures");
    assert_eq!(finished.status.code(), Some(1));
}

#[test]
fn names_hosts_and_ports_that_lead_nowhere() {
    let sim = sim();
    let world = world(&sim);
    let (_, report) = doctor(&world, &["--url", "wss://ssmmessages.nowhere-1.amazonaws.com.invalid/x"]);
    assert_check(&report, "websocket", "failure", "not a Session Manager endpoint");
    let mut world = world;
    world.set("SSM_PLUGIN_ALLOW_STREAM_HOST", "gateway.invalid");
    let (_, report) = doctor(&world, &["--url", "wss://gateway.invalid/x"]);
    assert_check(&report, "dns", "failure", "gateway.invalid: ");
    assert_check(&report, "websocket", "skipped", "see the dns check");
    assert_eq!(report["failures"], 1, "one cause is one failure: {report:#}");
    let closed = FreePort::new();
    let url = format!("ws://127.0.0.1:{}/x", closed.number());
    let (_, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "dns", "ok", "127.0.0.1");
    assert_check(&report, "websocket", "failure", "TCP port 443");
}

#[test]
fn proxies() {
    let sim = sim();
    let mut world = world(&sim);
    world.set("SSM_PLUGIN_ALLOW_STREAM_HOST", "gateway.invalid");
    let proxy = Server::start(|mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 1024]);
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\
                      Content-Length: 0\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes());
    });
    let address = format!("http://127.0.0.1:{}", proxy.port());
    world.set("HTTPS_PROXY", &address);
    let url = ["--url", "wss://gateway.invalid/x"];
    let (_, report) = doctor(&world, &url);
    assert_check(&report, "proxy", "ok", &address);
    assert_check(&report, "dns", "ok", "does not resolve here; the proxy will resolve it");
    assert_check(&report, "websocket", "failure", "give user and password in HTTPS_PROXY");
    let closed = FreePort::new();
    world.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", closed.number()));
    assert_check(&doctor(&world, &url).1, "websocket", "failure", "proxy http://127.0.0.1:");
    world.set("HTTPS_PROXY", "ftp://user:swordfish@127.0.0.1:1");
    let (finished, report) = doctor(&world, &url);
    assert_check(&report, "proxy", "failure", "HTTPS_PROXY is not the URL of a proxy");
    assert!(!finished.text().contains("swordfish"), "the password is shown");
    assert_check(&report, "websocket", "skipped", "see the proxy check");
}

/// The port's owner is alive, but is not a proxy.
#[test]
fn a_proxy_that_accepts_and_stays_silent_is_blamed() {
    let sim = sim();
    let mut world = world(&sim);
    let silent = Server::start(|stream: TcpStream| {
        let _ = std::io::copy(&mut &stream, &mut std::io::sink());
    });
    let proxy = format!("http://127.0.0.1:{}", silent.port());
    world.set("HTTPS_PROXY", &proxy);
    world.set("SSM_PLUGIN_ALLOW_STREAM_HOST", "gateway.invalid");
    let (_, report) = doctor(&world, &["--url", "wss://gateway.invalid/x"]);
    assert_check(&report, "websocket", "failure", &format!("proxy {proxy} accepted the connection, but"));
    let websocket = check(&report, "websocket").to_string();
    assert!(!websocket.contains("set HTTPS_PROXY"), "{websocket}");
    assert_eq!(report["failures"], 1, "one cause is one failure: {report:#}");
}

#[test]
fn credentials_are_tested() {
    let known = Credentials {
        access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
    };
    let sim = start(Config { credentials: Some(known), ..Config::default() });
    let mut world = world(&sim);
    let url = channel(&sim);
    let (_, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "credentials", "ok", "arn:aws:iam::123456789012:user/sim");
    assert_eq!(check(&report, "credentials")["fields"]["account"], "123456789012");
    world.set("AWS_SECRET_ACCESS_KEY", "another-secret");
    let (finished, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "credentials", "failure", "SignatureDoesNotMatch");
    assert!(!finished.text().contains("another-secret"), "the secret is shown");
    world.set("AWS_ACCESS_KEY_ID", "AKIAMADEUPMADEUPMADE");
    let (finished, report) = doctor(&world, &["--url", &url, "--target", TARGET]);
    assert_check(&report, "credentials", "failure", "sts:GetCallerIdentity failed: InvalidClientTokenId");
    assert_check(&report, "credentials", "failure", "`aws sts get-caller-identity`");
    assert_check(&report, "instance", "skipped", "see the credentials check");
    assert_eq!((&report["failures"], finished.status.code()), (&1.into(), Some(1)), "{report:#}");
}

#[test]
fn the_target_is_looked_up() {
    let old = Instance::new("i-0aaaaaaaaaaaaaaaa").with_agent("3.3.4793.0").named("old");
    let lost = Instance::new("i-0bbbbbbbbbbbbbbbb").in_state(PingStatus::ConnectionLost);
    let sim = start(Config { instances: vec![old, lost], ..Config::default() });
    let (world, url) = (world(&sim), channel(&sim));
    let look_up = |target: &str| doctor(&world, &["--url", &url, "--target", target]).1;
    let report = look_up(TARGET);
    assert_check(&report, "instance", "ok", "is connected; Amazon Linux, SSM Agent 3.3.4851.0");
    assert_eq!(check(&report, "instance")["fields"]["state"], "Online");
    for name in ["i-0aaaaaaaaaaaaaaaa", "tag:Name=old", "old"] {
        assert_check(&look_up(name), "instance", "warning", "too old for: the fix of CVE-2026-89049");
    }
    assert_check(&look_up("i-0bbbbbbbbbbbbbbbb"), "instance", "failure", "is not connected, last seen 20");
    assert_check(
        &look_up("i-0cccccccccccccccc"),
        "instance",
        "failure",
        "is not a managed instance of this account",
    );
    assert_check(&look_up("ecs:cluster_task_container"), "instance", "skipped", "an ECS container");

    let denied = vec!["ssm:DescribeInstanceInformation".to_owned()];
    let sim = start(Config { denied, ..Config::default() });
    let world = self::world(&sim);
    let (finished, report) = doctor(&world, &["--url", &channel(&sim), "--target", TARGET]);
    assert_check(
        &report,
        "instance",
        "skipped",
        "no permission to look up instances (ssm:DescribeInstanceInformation)",
    );
    assert_eq!(finished.status.code(), Some(0), "it is not a failure: {report:#}");
}

/// The permission to use the key of encrypted shells, without making a data key.
#[test]
fn the_key_of_encrypted_shells_is_checked_by_a_dry_run() {
    let report = |kms: KmsOptions, denied: &[&str]| {
        let denied = denied.iter().map(|action| (*action).to_owned()).collect();
        let sim = start(Config { kms, denied, ..Config::default() });
        doctor(&world(&sim), &["--url", &channel(&sim), "--target", TARGET]).1
    };
    let key = || KmsOptions { encrypt_shell: Some("alias/sessions".to_owned()), ..KmsOptions::default() };
    assert_check(&report(KmsOptions::default(), &[]), "encryption", "ok", "name no KMS key");
    let allowed = report(key(), &[]);
    assert_check(&allowed, "encryption", "ok", "alias/sessions may be used");
    assert_eq!(check(&allowed, "encryption")["fields"]["key"], "alias/sessions");
    let denied = report(KmsOptions { deny: true, ..key() }, &[]);
    assert_check(&denied, "encryption", "failure", "kms:GenerateDataKey failed: AccessDeniedException");
    assert_eq!(denied["failures"], 1, "one cause is one failure: {denied:#}");
    let absent = report(KmsOptions { keys: vec!["alias/other".to_owned()], ..key() }, &[]);
    assert_check(&absent, "encryption", "failure", "NotFoundException");
    let hidden = report(key(), &["ssm:GetDocument"]);
    assert_check(
        &hidden,
        "encryption",
        "skipped",
        "no permission to read the session preferences (ssm:GetDocument)",
    );
    assert_eq!(hidden["failures"], 0, "{hidden:#}");
}

/// A check that takes long does not hold back the others.
#[test]
fn each_line_is_printed_as_its_check_ends() {
    let sim = sim();
    let world = world(&sim);
    let gate = world.path("gate");
    named_pipe(&gate);
    install(&world, "aws", &format!("#!/bin/sh\nread line < '{}'\necho aws-cli/2.31.0\n", gate.display()));
    let running = Running::spawn_without_stdin(world.plugin().args(["doctor", "--url", &channel(&sim)]));
    let before = running.stdout.wait_for("websocket    ");
    assert!(!before.contains("aws-cli"), "{before}");
    std::fs::write(&gate, "go\n").expect("let it go");
    let text = running.finish().text();
    assert!(text.contains("ok       aws-cli      "), "{text}");
}

#[test]
fn endpoints_of_partitions_fips_and_dual_stack() {
    let sim = sim();
    for (region, variable, host) in [
        ("eu-isoe-west-1", "", "ssmmessages.eu-isoe-west-1.cloud.adc-e.uk"),
        ("us-gov-west-1", "AWS_USE_FIPS_ENDPOINT", "ssmmessages-fips.us-gov-west-1.amazonaws.com"),
        ("eu-west-1", "AWS_USE_DUALSTACK_ENDPOINT", "ssmmessages.eu-west-1.api.aws"),
    ] {
        let mut world = world(&sim);
        if !variable.is_empty() {
            world.set(variable, "true");
        }
        // A proxy that is not there: nothing leaves this machine.
        let closed = FreePort::new();
        world.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", closed.number()));
        let (_, report) = doctor(&world, &["--region", region]);
        let dns = check(&report, "dns")["found"].to_string();
        assert!(dns.contains(&format!("{host}:")), "{dns}");
    }
}

#[test]
fn the_note_on_ansible_needs_ansible() {
    let sim = sim();
    let mut world = world(&sim);
    world.set("PATH", &format!("{}:/bin", world.path("bin").display()));
    let url = channel(&sim);
    let plugin = |world: &World| check(&doctor(world, &["--url", &url]).1, "plugin").to_string();
    assert!(!plugin(&world).contains("Ansible"), "{}", plugin(&world));
    install(&world, "ansible-playbook", "#!/bin/sh\n");
    let usual = std::path::Path::new("/usr/local/bin/session-manager-plugin");
    assert!(plugin(&world).contains("Ansible") || usual.exists(), "{}", plugin(&world));
}

/// The same machine gives the same lines of JSON, but for times.
#[test]
fn json_is_stable() {
    let sim = sim();
    let (world, url) = (world(&sim), channel(&sim));
    let names = || -> Vec<String> {
        let text = doctor(&world, &["--url", &url, "--target", TARGET]).0.text();
        let keys = text.lines().filter_map(|line| line.trim().split_once(':'));
        keys.map(|(key, value)| if key == "\"name\"" { value.to_owned() } else { key.to_owned() }).collect()
    };
    assert_eq!(names(), names());
    let (_, report) = doctor(&world, &["--url", &url]);
    assert_eq!(report["time"].as_str().map(str::len), Some("2026-12-31T23:59:59Z".len()), "{report:#}");
}

#[test]
fn trust() {
    let sim = start(Config { tls: true, ..Config::default() });
    let mut world = world(&sim);
    let url = channel(&sim).replace("ws:", "wss:");
    let (_, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "websocket", "failure", "signed by an unknown CA");
    let bundle = world.path("ca.pem");
    std::fs::write(&bundle, sim.ca_pem().expect("TLS")).expect("write the authority");
    world.set("AWS_CA_BUNDLE", &bundle.display().to_string());
    let (_, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "trust", "ok", "ca.pem");
    assert_check(&report, "websocket", "ok", "127.0.0.1");
    std::fs::write(&bundle, "no certificate").expect("spoil it");
    let (_, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "trust", "failure", "there is no CA certificate in");
    assert_check(&report, "websocket", "skipped", "see the trust check");
    assert_eq!(report["failures"], 1, "one cause is one failure: {report:#}");
}

#[test]
fn something_between_that_does_not_pass_websockets() {
    let sim = sim();
    let world = world(&sim);
    for (answer, words) in [
        ("200 OK\r\nContent-Type: text/html", "something in between blocks websockets"),
        ("302 Found\r\nLocation: http://portal.example/", "captive portal"),
        ("403 Forbidden\r\nContent-Type: text/html", "proxy or filter"),
        ("502 Bad Gateway", "502 Bad Gateway"),
    ] {
        let filter = Server::start(move |mut stream: TcpStream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        });
        let url = format!("ws://127.0.0.1:{}/x", filter.port());
        assert_check(&doctor(&world, &["--url", &url]).1, "websocket", "failure", words);
    }
}

#[test]
fn settings_and_log() {
    let sim = sim();
    let mut world = world(&sim);
    let url = channel(&sim);
    world.set("SSM_PLUGIN_WINDOW", "much");
    world.set("SSM_PLUGIN_LOG_FILE", "/proc/nowhere/log");
    let (finished, report) = doctor(&world, &["--url", &url]);
    assert_check(&report, "settings", "warning", "SSM_PLUGIN_WINDOW=\"much\"");
    assert_check(&report, "log", "warning", "/proc/nowhere/log");
    assert_eq!(finished.status.code(), Some(0));
}

/// A section that matches the environment's profile applies, as in a session of the AWS CLI.
#[test]
fn sections_of_the_settings_file_for_the_profile_of_the_environment() {
    let sim = sim();
    let mut world = world(&sim);
    let directory = world.home().join(".config/session-manager-plugin");
    std::fs::create_dir_all(&directory).expect("the directory of the settings file");
    std::fs::write(directory.join("config.toml"), "[[match]]\nprofile = 'prod-*'\nquiet = true\n")
        .expect("write the settings file");
    let url = channel(&sim);
    assert_check(
        &doctor(&world, &["--url", &url]).1,
        "settings",
        "ok",
        "all settings have their defaults; settings file /",
    );
    for variable in ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"] {
        world.set(variable, "prod-eu");
        assert_check(&doctor(&world, &["--url", &url]).1, "settings", "ok", "config.toml: SSM_PLUGIN_QUIET");
        world.set(variable, "");
    }
    let section = "[[match]]\nregion = 'eu-*'\nquiet = true\n";
    std::fs::write(directory.join("config.toml"), section).expect("write the settings file");
    assert_check(&doctor(&world, &["--url", &url]).1, "settings", "ok", "all settings have their defaults");
    world.set("AWS_REGION", "eu-west-1");
    assert_check(&doctor(&world, &["--url", &url]).1, "settings", "ok", "config.toml: SSM_PLUGIN_QUIET");
}

#[test]
fn relaxed_safeguards_are_named() {
    let sim = sim();
    let mut world = world(&sim);
    world.set("SSM_PLUGIN_LOCAL_HOST", "0.0.0.0");
    world.set("SSM_PLUGIN_RESTART", "1");
    world.set("SSM_PLUGIN_ANY_USER", "1");
    let (_, report) = doctor(&world, &["--url", &channel(&sim)]);
    assert_check(&report, "settings", "warning", "SSM_PLUGIN_LOCAL_HOST=0.0.0.0: other machines can connect");
    assert_check(&report, "settings", "warning", "SSM_PLUGIN_ANY_USER=1: all users of this machine");
    let relaxed = &check(&report, "settings")["fields"]["relaxed"];
    assert_eq!(
        (&relaxed[0]["name"], &relaxed[0]["value"]),
        (&"SSM_PLUGIN_LOCAL_HOST".into(), &"0.0.0.0".into())
    );
    assert_eq!(report["failures"], 0, "{report:#}");
}

/// JSON has in fields the values that the text shows.
#[test]
fn each_check_has_fields() {
    let sim = sim();
    let (mut world, url) = (world(&sim), channel(&sim));
    world.set("SSM_PLUGIN_STATUS", "always");
    let (_, report) = doctor(&world, &["--url", &url]);
    let field = |name: &str, field: &str| check(&report, name)["fields"][field].clone();
    assert_eq!(field("settings", "environment"), serde_json::json!(["SSM_PLUGIN_STATUS"]));
    assert_eq!(field("dns", "addresses"), serde_json::json!({"127.0.0.1": ["127.0.0.1"]}));
    assert_eq!(field("log", "filter"), Value::Null);
    assert!(field("log", "path").as_str().is_some_and(|path| path.ends_with("session-manager-plugin")));
    assert!(field("settings", "path").as_str().is_some_and(|path| path.ends_with("/config.toml")));
}

#[test]
fn on_a_terminal() {
    let sim = sim();
    let mut world = world(&sim);
    let url = channel(&sim);
    world.set("NO_COLOR", "1");
    let look = |world: &World| {
        let mut command = world.plugin();
        command.args(["doctor", "--url", &url]);
        let mut pty = Pty::spawn(&command);
        pty.finish();
        String::from_utf8_lossy(&pty.screen.wait_closed()).into_owned()
    };
    let screen = look(&world);
    assert!(screen.contains("\u{2713} ok       terminal     80 by 24, raw mode, TERM=xterm"), "{screen}");
    assert!(!screen.contains("\u{1b}[3"), "NO_COLOR is set: {screen}");
    world.unset(&["NO_COLOR"]);
    let screen = look(&world);
    assert!(screen.contains("\u{1b}[32m\u{2713} ok     \u{1b}[0m  terminal     80 by 24"), "{screen}");
    world.set("TERM", "dumb");
    let screen = look(&world);
    assert!(screen.contains("warning  terminal     80 by 24, TERM is \"dumb\""), "{screen}");
}

#[test]
fn its_help() {
    let world = World::new();
    for words in [["doctor", "--help"], ["doctor", "-h"]] {
        let finished = run(world.plugin().args(words));
        finished.assert_ok();
        let text = finished.text();
        assert!(text.contains("--profile <PROFILE>") && text.contains("Exit status:"), "{text}");
        assert!(!text.contains("SSM_PLUGIN_RESTART"), "it is about doctor alone: {text}");
    }
}

#[test]
fn words_it_does_not_know() {
    let finished = run(World::new().plugin().args(["doctor", "--fix"]));
    assert_eq!(finished.status.code(), Some(2));
    assert_eq!(
        finished.errors(),
        "session-manager-plugin doctor: unexpected argument '--fix' found; \
         usage: session-manager-plugin doctor [OPTION]...\n"
    );
    assert_eq!(finished.text(), "");
}
