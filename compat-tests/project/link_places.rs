//! `scripts/link-places`: links at the places where some tools look for the official plugin.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::process::{Finished, run};
use crate::harness::{World, plugin};

const FOLDERS: [&str; 2] = ["usr/local/bin", "usr/local/sessionmanagerplugin/bin"];
const NAME: &str = "session-manager-plugin";

/// The plugin under a path with a link in it, and a root folder for the links.
struct Places {
    world: World,
}

impl Places {
    fn new() -> Places {
        let world = World::new();
        std::fs::create_dir(world.path("opt")).expect("a folder");
        symlink(world.path("opt"), world.path("linked")).expect("a link");
        std::fs::copy(plugin(), world.path("opt").join(NAME)).expect("the plugin");
        Places { world }
    }

    fn run(&self, action: &str, program: &str) -> Finished {
        run(self.command(action).arg(program))
    }

    fn command(&self, action: &str) -> Command {
        let mut command = self.world.command("/bin/sh");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/link-places")).arg(action);
        command.env("DESTDIR", self.root()).current_dir(self.world.path("opt"));
        command
    }

    fn root(&self) -> String {
        self.world.path("root").display().to_string() + "/"
    }

    fn links(&self) -> Vec<PathBuf> {
        let at = |folder: &&str| Path::new(&self.root()).join(folder).join(NAME);
        FOLDERS.iter().map(at).filter(|place| place.symlink_metadata().is_ok()).collect()
    }
}

/// The same file has many spellings: it was left in place, and the status was 0.
#[test]
fn its_own_link_is_removed_under_any_spelling() {
    let places = Places::new();
    let path = |name: &str| places.world.path(name).display().to_string();
    for (added, removed) in [
        (path("opt/session-manager-plugin"), path("linked/session-manager-plugin")),
        (path("linked/session-manager-plugin"), path("opt//./session-manager-plugin")),
        (path("opt/session-manager-plugin"), format!("../opt/{NAME}")),
        (NAME.to_owned(), path("opt/session-manager-plugin")),
    ] {
        places.run("add", &added).assert_ok();
        assert_eq!(places.links().len(), FOLDERS.len(), "{added}");
        let finished = places.run("remove", &removed);
        finished.assert_ok();
        assert!(places.links().is_empty(), "{added} {removed}: {}", finished.text());
    }
}

#[test]
fn its_own_link_is_removed_when_the_program_is_gone() {
    let places = Places::new();
    let path = |name: &str| places.world.path(name).display().to_string();
    places.run("add", &path("opt/session-manager-plugin")).assert_ok();
    std::fs::remove_file(path("opt/session-manager-plugin")).expect("remove the program");
    places.run("remove", &path("linked/session-manager-plugin")).assert_ok();
    assert!(places.links().is_empty());
}

#[test]
fn what_leads_elsewhere_stays() {
    let places = Places::new();
    let own = places.world.path("opt").join(NAME);
    let own = own.display().to_string();
    places.run("add", &own).assert_ok();
    let [first, second] = places.links().try_into().expect("two links");
    std::fs::remove_file(&first).expect("remove a link");
    symlink("/bin/true", &first).expect("another's link");
    std::fs::remove_file(&second).expect("remove a link");
    // A copy is not a link, though it is the same program.
    std::fs::hard_link(&own, &second).expect("another's program");
    places.run("remove", &own).assert_ok();
    assert_eq!(places.links(), [first, second]);
    let again = places.run("add", &own);
    assert_eq!(again.status.code(), Some(1), "{}", again.text());
}
