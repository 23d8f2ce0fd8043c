//! Private certificate authorities.

use std::net::{Ipv4Addr, SocketAddr};
#[cfg(unix)]
use std::path::Path;

use ssm_sim::TlsFront;

use super::Site;
#[cfg(unix)]
use crate::harness::named_pipe;

#[test]
fn a_private_authority_is_trusted_when_named() {
    for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        let mut site = Site::here("localhost");
        site.set(name, &site.bundle.display().to_string());
        site.works();
    }
}

#[test]
fn a_private_authority_is_trusted_when_the_profile_names_it() {
    let site = Site::here("localhost");
    std::fs::create_dir(site.world.home().join(".aws")).expect("config folder");
    let config = format!("[default]\nca_bundle = {}\n", site.bundle.display());
    std::fs::write(site.world.home().join(".aws/config"), config).expect("config");
    site.works();
}

/// A pipe, a device without an end.
#[cfg(unix)]
#[test]
fn a_certificate_file_that_blocks_is_refused_in_a_sentence() {
    let mut site = Site::here("localhost");
    let pipe = site.world.path("pipe");
    named_pipe(&pipe);
    for path in [pipe.as_path(), Path::new("/dev/zero")] {
        for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
            site.set(name, &path.display().to_string());
            site.fails_with(&format!(
                "cannot read the CA certificates in {}: it is not a regular file",
                path.display()
            ));
            site.world.unset(&[name]);
        }
    }
    // In a folder it is not looked at.
    let folder = site.world.path("certificates");
    std::fs::create_dir(&folder).expect("a folder");
    named_pipe(&folder.join("0a1b2c3d.0"));
    std::fs::copy(&site.bundle, folder.join("ours.pem")).expect("copy");
    site.set("SSL_CERT_DIR", &folder.display().to_string());
    site.works();
    site.set("SSL_CERT_FILE", "/dev/null");
    site.works();
}

/// A CA in `AWS_CA_BUNDLE` replaces all others, as with the AWS CLI.
#[test]
fn named_authorities_replace_the_system_s() {
    let other = TlsFront::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), &["elsewhere"]).expect("another");
    for (system, named) in [("other", "ours"), ("ours", "other")] {
        let mut site = Site::here("localhost");
        for (variable, which) in [("SSL_CERT_FILE", system), ("AWS_CA_BUNDLE", named)] {
            let path = site.world.path(&format!("{which}.pem"));
            let pem = if which == "ours" { site.front.ca_pem() } else { other.ca_pem() };
            std::fs::write(&path, pem).expect("write the CA");
            site.set(variable, &path.display().to_string());
        }
        if named == "ours" {
            site.works();
        } else {
            site.fails_with("its certificate is signed by an unknown CA");
        }
    }
}

/// RHEL's `ca-bundle.trust.crt` has this form; the AWS CLI takes it.
#[cfg(unix)]
#[test]
fn openssl_s_trusted_certificates_are_a_bundle() {
    let site = Site::here("localhost").trusting();
    let openssl = |words: &[&str]| {
        let mut command = site.world.command("openssl");
        command.args(["x509", "-in"]).arg(&site.bundle).args(["-trustout", "-out"]).arg(&site.bundle);
        assert!(command.args(words).status().expect("openssl").success());
    };
    openssl(&["-addtrust", "serverAuth", "-setalias", "ours"]);
    site.works();
    openssl(&["-clrtrust", "-addreject", "serverAuth"]);
    site.fails_with("there is no CA certificate in");
}

#[test]
fn a_bundle_that_breaks_off_is_refused_in_a_sentence() {
    let site = Site::here("localhost").trusting();
    let pem = std::fs::read_to_string(&site.bundle).expect("the CA");
    std::fs::write(&site.bundle, format!("{pem}{}", &pem[..200])).expect("write");
    site.fails_with(": it ends in the middle of a certificate; copy the file again");
}

#[test]
fn an_unknown_authority_is_refused_with_advice() {
    let mut site = Site::here("localhost");
    site.fails_with(
        "cannot open TLS to localhost: its certificate is signed by an unknown CA; if a proxy or gateway uses its own CA, \
         set AWS_CA_BUNDLE or the profile's ca_bundle to a PEM file with that CA, which replaces the system's CAs; the AWS \
         CLI does not pass --ca-bundle or --no-verify-ssl on to the plugin",
    );
    let missing = site.world.path("missing.pem");
    site.set("AWS_CA_BUNDLE", &missing.display().to_string());
    site.fails_with(&format!("cannot read the CA certificates in {}: ", missing.display()));
    std::fs::write(&missing, "no certificate\n").expect("write");
    site.fails_with(&format!("there is no CA certificate in {}", missing.display()));
    // A certificate for another name.
    let site = Site::here("127.0.0.1").trusting();
    site.fails_with("cannot open TLS to 127.0.0.1: its certificate is for another host name");
}
