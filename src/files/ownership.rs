//! Ownership of files: which ones other users cannot change.
//!
//! The rule is that of OpenSSH's StrictModes. A file is trusted if it belongs to the user or to root, only they can
//! write to it, and the same holds for the directories on the way to it, from the home directory or the root down. Two
//! things are accepted that OpenSSH refuses: directories with the sticky bit (`/tmp`), where only an entry's owner can
//! replace it, and write access for the user's private group, which Ubuntu's and Fedora's default umask grants.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Reason for not trusting a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnershipError {
    /// Its owner, or the owner of a directory on the way to it, is another user.
    #[error("{path} belongs to another user (uid {owner})")]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// The owner's number.
        owner: u32,
    },
    /// It, or a directory on the way to it, can be written to by others.
    #[error("other users can write to {path} (mode {mode:o}); to prevent that, run chmod go-w {path}")]
    Writable {
        /// The file or directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another name for the same file may be anywhere.
    #[error("{path} has more than one hard link")]
    Linked {
        /// The file.
        path: PathBuf,
    },
}

impl From<OwnershipError> for io::Error {
    fn from(reason: OwnershipError) -> io::Error {
        io::Error::other(reason)
    }
}

/// Checks an open file that is to be read: owner and permissions.
///
/// # Errors
/// See [`OwnershipError`].
pub(super) fn check_content(path: &Path, file: &Metadata) -> Result<(), OwnershipError> {
    check_owner(path, file)?;
    check_permissions(path, file)
}

/// Checks an open file that is to be written: its owner, and that nothing else bears its content. Permissions are left
/// to the caller, who narrows them.
///
/// # Errors
/// See [`OwnershipError`].
pub(super) fn check_target(path: &Path, file: &Metadata) -> Result<(), OwnershipError> {
    check_owner(path, file)?;
    if file.is_file() && file.nlink() > 1 {
        return Err(OwnershipError::Linked { path: path.to_owned() });
    }
    Ok(())
}

/// Checks the directories on the way to `path`, as it is written and with all symbolic links resolved.
///
/// # Errors
/// [`OwnershipError`] in an [`io::Error`], or the system's error where a directory is missing.
pub(super) fn check_way(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    check_ancestors(&path, home.as_deref())?;
    let Some(parent) = path.parent() else { return Ok(()) };
    let real = std::fs::canonicalize(parent)?;
    if real != parent {
        let home = home.and_then(|home| std::fs::canonicalize(home).ok());
        check_ancestors(&real.join("file"), home.as_deref())?;
    }
    // A link to the file itself leads somewhere else.
    let Some(target) = std::fs::canonicalize(&path).ok().filter(|target| target.parent() != Some(&real))
    else {
        return Ok(());
    };
    check_ancestors(&target, None)
}

/// Checks each directory above `path` up to `home`, or up to the root where `path` is elsewhere.
fn check_ancestors(path: &Path, home: Option<&Path>) -> io::Result<()> {
    for directory in path.ancestors().skip(1) {
        let found = std::fs::symlink_metadata(directory)?;
        check_owner(directory, &found)?;
        // A link's own permissions mean nothing; its owner is who can change it.
        if found.is_dir() && found.mode() & STICKY == 0 {
            check_permissions(directory, &found)?;
        }
        if home == Some(directory) {
            break;
        }
    }
    Ok(())
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), OwnershipError> {
    let owner = found.uid();
    if owner == ROOT || owner == user() {
        return Ok(());
    }
    Err(OwnershipError::Owner { path: path.to_owned(), owner })
}

fn check_permissions(path: &Path, found: &Metadata) -> Result<(), OwnershipError> {
    let mode = found.mode() & PERMISSIONS;
    let is_shared = match mode & WRITABLE_BY_OTHERS {
        0 => false,
        WRITABLE_BY_GROUP => !has_private_group(found.gid()).unwrap_or(false),
        _ => true,
    };
    if is_shared { Err(OwnershipError::Writable { path: path.to_owned(), mode }) } else { Ok(()) }
}

/// Returns `true` if `group` has the user as its only member.
fn has_private_group(group: u32) -> io::Result<bool> {
    // Elsewhere the files do not list all users.
    if !cfg!(target_os = "linux") {
        return Ok(false);
    }
    let read = std::fs::read_to_string;
    Ok(is_private_group(&read("/etc/passwd")?, &read("/etc/group")?, user(), group))
}

/// As [`has_private_group`], from the text of `/etc/passwd` and `/etc/group`. A private group has the user's name
/// (useradd's USERGROUPS_ENAB), so that one with members in a directory service is not taken for one.
fn is_private_group(users: &str, groups: &str, user: u32, group: u32) -> bool {
    let number = |field: Option<&str>| field.and_then(|field| field.parse::<u32>().ok());
    let mut name = None;
    for line in users.lines() {
        let mut fields = line.split(':');
        let (this, uid, gid) = (fields.next(), number(fields.nth(1)), number(fields.next()));
        match (uid == Some(user), gid == Some(group)) {
            (true, true) => name = this,
            (false, true) => return false,
            (_, false) => {}
        }
    }
    let Some(name) = name else { return false };
    groups.lines().any(|line| {
        let mut fields = line.split(':');
        let (this, gid, members) = (fields.next(), number(fields.nth(1)), fields.next());
        let mut members = members.unwrap_or_default().split(',').filter(|member| !member.is_empty());
        this == Some(name) && gid == Some(group) && members.all(|member| member == name)
    })
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

const ROOT: u32 = 0;
const PERMISSIONS: u32 = 0o7777;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const WRITABLE_BY_GROUP: u32 = 0o020;

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused_unless_it_is_sticky() {
        let dir = tempfile::tempdir().unwrap();
        let (open, file) = (dir.path().join("open"), dir.path().join("open/private/file"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        check_way(&file).unwrap();
        set_mode(&open, 0o777);
        let error = check_way(&file).unwrap_err().to_string();
        let expected = format!(
            "other users can write to {0} (mode 777); to prevent that, run chmod go-w {0}",
            open.display()
        );
        assert!(error.starts_with(&expected), "{error}");
        set_mode(&open, 0o1777);
        check_way(&file).unwrap();
        let error = check_way(&dir.path().join("absent/file")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_link_is_followed_to_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        let (open, link) = (dir.path().join("open"), dir.path().join("link"));
        fs::create_dir(&open).unwrap();
        fs::write(open.join("file"), "").unwrap();
        symlink(&open, &link).unwrap();
        symlink(open.join("file"), dir.path().join("name")).unwrap();
        for path in ["link/file", "name"] {
            set_mode(&open, 0o755);
            check_way(&dir.path().join(path)).expect(path);
            set_mode(&open, 0o777);
            let error = check_way(&dir.path().join(path)).unwrap_err().to_string();
            assert!(error.contains("open (mode 777)"), "{path}: {error}");
        }
    }

    #[test]
    fn files_of_others_and_files_that_others_can_write_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = || check_content(file.path(), &file.as_file().metadata().unwrap());
        for mode in [0o600, 0o644, 0o444] {
            set_mode(file.path(), mode);
            check().unwrap();
        }
        for mode in [0o602, 0o646, 0o666] {
            set_mode(file.path(), mode);
            assert!(matches!(check(), Err(OwnershipError::Writable { .. })), "{mode:o}");
        }
        set_mode(file.path(), 0o600);
        fs::hard_link(file.path(), file.path().with_extension("second")).unwrap();
        let target = check_target(file.path(), &file.as_file().metadata().unwrap());
        fs::remove_file(file.path().with_extension("second")).unwrap();
        assert!(matches!(target, Err(OwnershipError::Linked { .. })), "{target:?}");
        // Only root can give a file away.
        if user() == ROOT {
            std::os::unix::fs::chown(file.path(), Some(65_534), None).unwrap();
            assert!(matches!(check(), Err(OwnershipError::Owner { owner: 65_534, .. })));
        }
    }

    #[test]
    fn a_private_group_has_the_user_s_name_and_no_other_member() {
        const USERS: &str = "root:x:0:0:root:/root:/bin/sh\njane:x:1000:1000::/home/jane:/bin/sh\n\
            joe:x:1001:100::/home/joe:/bin/sh\n";
        let is_private = |groups: &str, user, group| is_private_group(USERS, groups, user, group);
        assert!(is_private("root:x:0:\njane:x:1000:\n", 1000, 1000));
        assert!(is_private("jane:x:1000:jane\n", 1000, 1000));
        assert!(!is_private("jane:x:1000:joe\n", 1000, 1000));
        assert!(!is_private("staff:x:1000:\n", 1000, 1000), "members may be in a directory service");
        assert!(!is_private("jane:x:1000:\n", 1001, 1000), "another user's");
        assert!(!is_private("users:x:100:\njane:x:1000:\n", 1001, 100));
        assert!(!is_private("jane:x:1000:\n", 1000, 1234));
        let shared = format!("{USERS}ann:x:1002:1000::/home/ann:/bin/sh\n");
        assert!(!is_private_group(&shared, "jane:x:1000:\n", 1000, 1000));
    }
}
