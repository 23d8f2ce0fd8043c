use super::*;
use crate::{Instance, PingStatus};

fn fleet() -> Vec<Instance> {
    let mut fleet: Vec<Instance> = (0..60).map(|n| Instance::new(&format!("i-{n:017x}"))).collect();
    fleet.push(Instance::new("i-web").named("web").with_tag("Env", "prod"));
    fleet.push(Instance::new("mi-lost").in_state(PingStatus::ConnectionLost));
    fleet
}

async fn describe(sim: &Sim, request: Value) -> (u16, Value) {
    call(sim, "AmazonSSM.DescribeInstanceInformation", request).await
}

fn ids(answer: &Value) -> Vec<&str> {
    let list = answer["InstanceInformationList"].as_array().expect("a list");
    list.iter().map(|instance| instance["InstanceId"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn instances_are_found_by_filters_and_listed_in_pages() {
    let sim = start(Config { instances: fleet(), ..Config::default() });
    let (status, first) = describe(&sim, json!({})).await;
    assert_eq!((status, ids(&first).len()), (200, 50));
    let (_, rest) = describe(&sim, json!({ "NextToken": first["NextToken"] })).await;
    assert_eq!(ids(&rest).len(), 13, "60 and three more, with the usual target");
    assert!(rest["NextToken"].is_null());
    for (key, value, expected) in [
        ("tag:Name", "web", "i-web"),
        ("tag:Env", "prod", "i-web"),
        ("tag-key", "Env", "i-web"),
        ("PingStatus", "ConnectionLost", "mi-lost"),
        ("InstanceIds", DEFAULT_TARGET, DEFAULT_TARGET),
    ] {
        let (_, answer) = describe(&sim, json!({ "Filters": [{ "Key": key, "Values": [value] }] })).await;
        assert_eq!(ids(&answer), [expected], "{key}");
    }
    let (status, answer) =
        describe(&sim, json!({ "Filters": [{ "Key": "Colour", "Values": ["red"] }] })).await;
    assert_eq!((status, &answer["__type"]), (400, &json!("InvalidInstanceInformationFilterValue")));
    assert_eq!(sim.requests().describe_instances, 8);
}

#[tokio::test]
async fn sessions_start_on_connected_instances_only() {
    let sim = start(Config { instances: fleet(), ..Config::default() });
    for (target, expected) in [("i-web", 200), ("mi-lost", 400), ("i-unknown", 400)] {
        let (status, _) = call(&sim, "AmazonSSM.StartSession", json!({ "Target": target })).await;
        assert_eq!(status, expected, "{target}");
    }
    let sim = start(Config { connected_after: PATIENCE, ..Config::default() });
    let (_, answer) = call(&sim, "AmazonSSM.StartSession", json!({ "Target": DEFAULT_TARGET })).await;
    assert_eq!(answer["__type"], "TargetNotConnected");
}

#[tokio::test]
async fn actions_are_denied_and_tokens_expire() {
    let sim = start(Config { denied: vec!["ssm:StartSession".to_owned()], ..Config::default() });
    let request = json!({ "Target": DEFAULT_TARGET });
    let (status, answer) = call(&sim, "AmazonSSM.StartSession", request.clone()).await;
    assert_eq!((status, &answer["__type"]), (400, &json!("AccessDeniedException")));
    assert!(answer["message"].as_str().expect("a message").contains("ssm:StartSession"), "{answer}");
    assert_eq!(describe(&sim, json!({})).await.0, 200);
    sim.deny("ssm:StartSession", false);
    assert_eq!(call(&sim, "AmazonSSM.StartSession", request.clone()).await.0, 200);
    let sim = start(Config { expired_token: true, ..Config::default() });
    assert_eq!(call(&sim, "AmazonSSM.StartSession", request).await.1["__type"], "ExpiredTokenException");
}

#[tokio::test]
async fn pushed_keys_are_good_for_a_while() {
    let folder = std::env::temp_dir().join(format!("ssm-sim-keys-{:016x}", fastrand::u64(..)));
    std::fs::create_dir(&folder).expect("a folder");
    let file = folder.join("authorized_keys");
    let key_lifetime = Duration::from_millis(300);
    let sim = start(Config { authorized_keys: Some(file.clone()), key_lifetime, ..Config::default() });
    let push = |instance: &str, key: &str| {
        let request = json!({ "InstanceId": instance, "InstanceOSUser": "ec2-user", "SSHPublicKey": key });
        call(&sim, "AWSEC2InstanceConnectService.SendSSHPublicKey", request)
    };
    let (status, answer) = push(DEFAULT_TARGET, "ssh-ed25519 AAAA me\n").await;
    assert_eq!((status, &answer["Success"]), (200, &json!(true)));
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "ssh-ed25519 AAAA me\n");
    assert_eq!(sim.pushed_keys()[0].user, "ec2-user");
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&file).expect("the file").is_empty() {
        assert!(Instant::now() < deadline, "the key stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(push("i-unknown", "ssh-ed25519 AAAA").await.1["__type"], "EC2InstanceNotFoundException");
    assert_eq!(push(DEFAULT_TARGET, "nonsense").await.1["__type"], "InvalidArgsException");
    std::fs::remove_dir_all(folder).expect("removes");
}
