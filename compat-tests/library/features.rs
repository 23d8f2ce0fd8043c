//! The crate without the feature `cli`: what programs that embed sessions compile.

use std::path::Path;
use std::process::Command;

/// Names of the packages in the dependency tree of the crate.
fn packages(features: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    command.args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none"]).args(features);
    let output = command.output().expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_programs_own_dependencies_are_left_out() {
    let own = ["clap", "clap_builder", "clap_complete", "roff", "strsim", "toml", "tracing-subscriber"];
    let (whole, embedded) = (packages(&[]), packages(&["--no-default-features"]));
    for name in own {
        assert!(whole.iter().any(|package| package == name), "{name} is not used at all");
        assert!(!embedded.iter().any(|package| package == name), "{name} is compiled without cli");
    }
    assert!(embedded.iter().any(|package| package == "rustls"), "{embedded:?}");
}
