//! Region, credentials, the target and the key of encrypted shells.

use ssm_sim::{Config, Credentials, Instance, KmsOptions, PingStatus};

use super::{assert_check, channel, check, doctor, install, world};
use crate::harness::TARGET;
use crate::harness::sim::{sim, start};

#[test]
fn region_and_profile() {
    let sim = sim();
    let mut world = world(&sim);
    world.set("AWS_DEFAULT_REGION", "");
    let url = channel(&sim);
    let (_, report) = doctor(&world, &[]);
    assert_check(&report, "region", "failure", "set AWS_DEFAULT_REGION");
    assert_check(&report, "websocket", "skipped", "see the region check");
    assert_check(&report, "credentials", "skipped", "not tested, see the region check");
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
        "version 1 of the AWS CLI ignores this variable",
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
        assert_check(&look_up(name), "instance", "warning", "lacks: the fix for CVE-2026-89049");
    }
    assert_check(&look_up("i-0bbbbbbbbbbbbbbbb"), "instance", "failure", "is not connected, last seen 20");
    assert_check(
        &look_up("i-0cccccccccccccccc"),
        "instance",
        "failure",
        "is not a managed instance of this account",
    );
    for tag in ["tag:a", "tag:a=", "tag:=b"] {
        let found = format!("{tag:?} is not a valid tag use tag:KEY=VALUE");
        assert_check(&look_up(tag), "instance", "failure", &found);
    }
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
    assert_check(&report(KmsOptions::default(), &[]), "encryption", "ok", "no KMS key is set");
    let allowed = report(key(), &[]);
    assert_check(&allowed, "encryption", "ok", "you can use the KMS key alias/sessions");
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
