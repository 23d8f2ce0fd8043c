//! Places the functions that an idle forward runs next to each other in a release build for Linux, and folds those that are
//! the same into one.
//!
//! The system maps a program's file in pieces of 64 KiB around each function that runs. Functions in the order of the
//! compiler are everywhere: one idle forward runs 1.2 MiB of them and would hold 5.5 MiB. `functions.txt` lists them;
//! `scripts/hot-functions` writes it. A function that is not listed, or listed in vain, costs memory and nothing else.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed={LIST}");
    println!("cargo::rerun-if-changed=scripts/hot/build.rs");
    println!("cargo::rerun-if-env-changed={SWITCH}");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let is_off = variable(SWITCH) == "off";
    if is_off || variable("CARGO_CFG_TARGET_OS") != "linux" || variable("PROFILE") != "release" {
        return;
    }
    let folder = variable("OUT_DIR");
    let folder = Path::new(&folder);
    let script = folder.join("hot.ld");
    let list = fs::read_to_string(LIST).expect("the list of functions");
    fs::write(&script, linker_script(&list)).expect("the linker script");
    if !pass(folder, &format!("-Wl,-T,{}", script.display())) {
        println!(
            "cargo::warning=the linker takes no script, so the program will hold more memory (see {LIST})"
        );
    }
    // One copy of functions that are the same, which are many with generic types. Rust promises no function an address of
    // its own. LLVM's linker can do it, which is Rust's own for x86_64 Linux; GNU's cannot.
    pass(folder, "-Wl,--icf=all");
}

/// Passes an argument on to the linker of the program if it is one that it takes. Returns whether it is.
fn pass(folder: &Path, argument: &str) -> bool {
    let is_taken = links(folder, argument);
    if is_taken {
        println!("cargo::rustc-link-arg-bin=session-manager-plugin={argument}");
    }
    is_taken
}

/// A part of a linker script, for use with the linker's own. A line `?` begins the functions whose names others have too,
/// `*` stands for what changes between builds.
fn linker_script(list: &str) -> String {
    let mut script = String::from("SECTIONS\n{\n  .text.hot :\n  {\n    *(\n");
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        match line {
            "?" => script.push_str("    )\n    *(\n"),
            name => script.push_str(&format!("      .text.{name} .text.unlikely.{name}\n")),
        }
    }
    script + "    )\n  }\n}\nINSERT BEFORE .text;\n"
}

/// Returns whether a program can be linked with an argument. GNU's linker and LLVM's take the script, others do not.
fn links(folder: &Path, argument: &str) -> bool {
    let source = folder.join("probe.rs");
    fs::write(&source, "fn main() {}\n").expect("a program to link");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.arg("--target").arg(variable("TARGET")).arg("-o").arg(folder.join("probe")).arg(&source);
    rustc.arg("-C").arg(format!("link-arg={argument}"));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    rustc.args(variable("CARGO_ENCODED_RUSTFLAGS").split('\x1f').filter(|flag| !flag.is_empty()));
    rustc.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

const LIST: &str = "scripts/hot/functions.txt";
/// `off` leaves the order to the compiler: valgrind finds functions in `.text` only.
const SWITCH: &str = "HOT_FUNCTIONS";
