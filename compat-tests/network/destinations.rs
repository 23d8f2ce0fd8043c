//! The hosts that the program contacts, as a proxy sees them that alone can resolve their names.

use ssm_sim::ProxyOptions;

use super::{API, CONNECT, SERVICE, STS, Site};
use crate::harness::process::run;

const TARGET: &str = "i-0123456789abcdef0";

/// Runs the program with `words` behind a proxy, and expects tunnels to these hosts and to none besides.
#[track_caller]
fn assert_contacts(words: &[&str], hosts: &[&str]) {
    let mut site = Site::at(SERVICE).trusting();
    let proxy = site.proxy(ProxyOptions::default());
    site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port()));
    let key = site.world.path("key");
    std::fs::write(key.with_extension("pub"), PUBLIC_KEY).expect("write the key");
    let words: Vec<String> =
        words.iter().map(|word| word.replace("KEY", &key.display().to_string())).collect();
    let finished = run(site.world.plugin().args(&words));
    let requests = proxy.requests();
    let mut contacted: Vec<&str> =
        requests.iter().map(|request| request.to.strip_suffix(":443").unwrap_or(&request.to)).collect();
    contacted.sort_unstable();
    contacted.dedup();
    assert_eq!(contacted, hosts, "{words:?}: {} {}", finished.text(), finished.errors());
}

#[test]
fn commands_contact_the_services_that_they_need_and_no_other_host() {
    assert_contacts(&["run", TARGET, "--", "true"], &[API, SERVICE]);
    assert_contacts(&["run", "a-name", "--", "true"], &[API]);
    assert_contacts(&["ssh", "--push-key=KEY", "--user", "ec2-user", TARGET], &[CONNECT, API, SERVICE]);
    assert_contacts(&["doctor", "--target", TARGET], &[API, SERVICE, STS]);
    assert_contacts(&["--version"], &[]);
    assert_contacts(&["ssh-config"], &[]);
}

/// Through a lost connection to the end, by the AWS CLI's own call.
#[test]
fn a_session_contacts_the_gateway_and_the_api_only() {
    let mut site = Site::at(SERVICE).trusting();
    let proxy = site.proxy(ProxyOptions::default());
    site.set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port()));
    site.is_resumed_through(&proxy);
    let others: Vec<_> = proxy
        .requests()
        .into_iter()
        .filter(|request| ![API, SERVICE].contains(&request.to.trim_end_matches(":443")))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

const PUBLIC_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl test\n";
