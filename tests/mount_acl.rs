//! POSIX access control lists, set and read with setfacl and getfacl. Each case runs on a native directory as well.

#[macro_use]
mod common;

use std::path::Path;

use common::command;
use common::user::is_root;
use common::{Mount, run_in};

cases! {
    a_list_lets_one_more_user_in
    new_names_inherit_the_default_list
    the_umask_counts_only_without_a_default_list
    a_change_of_mode_changes_the_mask
    a_list_that_says_no_more_than_the_mode_becomes_the_mode
    only_the_owner_sets_lists
    an_owner_outside_the_group_loses_set_group_id
    lists_are_shown_copied_and_removed
}

/// Standard output of a shell line in `dir`, which must succeed.
#[track_caller]
fn shell(dir: &Path, line: &str) -> String {
    run_in(dir, "sh", &["-c", line])
}

/// Whether a shell line in `dir` succeeds for a user without rights and these groups.
fn may(dir: &Path, user: &str, groups: &str, line: &str) -> bool {
    let groups = format!("--groups={groups}");
    let words = ["--reuid", user, "--regid", user, &groups, "sh", "-c", line];
    command::output("setpriv", &words, dir).status.success()
}

/// An entry line for each user, group, mask and so on, in one line.
#[track_caller]
fn list_of(dir: &Path, name: &str) -> String {
    let shown = run_in(dir, "getfacl", &["--numeric", "--omit-header", "--no-effective", name]);
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn a_list_lets_one_more_user_in(dir: &Path) {
    if !is_root() {
        return;
    }
    shell(dir, "chmod 755 . && echo audio >call && chmod 600 call");
    assert!(!may(dir, "2000", "2000", "cat call"));
    shell(dir, "setfacl -m u:2000:r,g:3000:rw call");
    assert_eq!(
        list_of(dir, "call"),
        "user::rw- user:2000:r-- group::--- group:3000:rw- mask::rw- other::---"
    );
    assert!(may(dir, "2000", "2000", "cat call"));
    assert!(!may(dir, "2000", "2000", "echo more >>call"), "it may read, no more");
    assert!(may(dir, "2001", "2001,3000", "echo more >>call"), "a group of its");
    assert!(!may(dir, "2001", "2001", "cat call"));
    shell(dir, "setfacl -x u:2000 call");
    assert!(
        !may(dir, "2000", "2000", "cat call"),
        "what was taken away is gone at once"
    );
}

fn new_names_inherit_the_default_list(dir: &Path) {
    shell(
        dir,
        "mkdir -m 755 top && setfacl -m d:u:2000:rwx,d:g:3000:r-x,d:o::--- top",
    );
    shell(
        dir,
        "cd top && umask 077 && : >file && mkdir below && mkfifo fifo && ln -s file link && mkdir -m 2700 shared",
    );
    let inherited = "user:2000:rwx group::r-x group:3000:r-x";
    assert_eq!(
        list_of(dir, "top/file"),
        format!("user::rw- {inherited} mask::rw- other::---")
    );
    assert_eq!(list_of(dir, "top/fifo"), list_of(dir, "top/file"));
    let defaults = "default:user::rwx default:user:2000:rwx default:group::r-x default:group:3000:r-x \
                    default:mask::rwx default:other::---";
    assert_eq!(
        list_of(dir, "top/below"),
        format!("user::rwx {inherited} mask::rwx other::--- {defaults}")
    );
    shell(dir, "mkdir top/below/deeper && : >top/below/deeper/file");
    assert_eq!(list_of(dir, "top/below/deeper/file"), list_of(dir, "top/file"));
    assert_eq!(
        shell(dir, "cd top && stat -c %a file below fifo shared"),
        "660\n770\n660\n2700\n"
    );
    // A mode that was asked for cuts the inherited list.
    shell(dir, "cp /dev/null top/plain && install -m 600 /dev/null top/private");
    assert_eq!(shell(dir, "stat -c %a top/plain top/private"), "660\n600\n");
}

fn the_umask_counts_only_without_a_default_list(dir: &Path) {
    let make = "umask 027 && : >$1/file && mkdir $1/below && mkfifo $1/fifo && mkdir -m 3777 $1/drop \
                && stat -c %a $1/file $1/below $1/fifo $1/drop";
    shell(dir, "mkdir without with && setfacl -m d:u::rwx,d:g::rwx,d:o::rwx with");
    let of = |name: &str| run_in(dir, "sh", &["-c", make, "sh", name]);
    assert_eq!(of("without"), "640\n750\n640\n3777\n");
    assert_eq!(of("with"), "666\n777\n666\n3777\n");
    // Marks that come with the making, which mkdir(1) sets afterwards.
    let marked = "umask 027 && python3 -c 'import os, sys; os.mkdir(sys.argv[1] + \"/marked\", 0o1777)' $1 \
                  && stat -c %a $1/marked";
    let marked_in = |name: &str| run_in(dir, "sh", &["-c", marked, "sh", name]);
    assert_eq!(
        (marked_in("without"), marked_in("with")),
        ("1750\n".into(), "1777\n".into())
    );
}

fn a_change_of_mode_changes_the_mask(dir: &Path) {
    shell(
        dir,
        ": >call && chmod 660 call && setfacl -m u:2000:rw call && chmod 640 call",
    );
    assert_eq!(
        list_of(dir, "call"),
        "user::rw- user:2000:rw- group::rw- mask::r-- other::---"
    );
    assert_eq!(shell(dir, "stat -c %a call"), "640\n");
    if is_root() {
        shell(dir, "chmod 755 .");
        assert!(may(dir, "2000", "2000", "cat call"));
        assert!(!may(dir, "2000", "2000", "echo x >>call"), "the mask holds");
    }
    shell(dir, "setfacl -m m::rw call");
    assert_eq!(shell(dir, "stat -c %a call"), "660\n", "and the other way round");
}

fn a_list_that_says_no_more_than_the_mode_becomes_the_mode(dir: &Path) {
    shell(dir, ": >call && chmod 600 call && setfacl -m u::rwx,g::r-x,o::--x call");
    assert_eq!(shell(dir, "stat -c %a call"), "751\n");
    let names = shell(dir, "getfattr -m - call");
    assert_eq!(names, "", "no list is kept for it");
}

fn only_the_owner_sets_lists(dir: &Path) {
    if !is_root() {
        return;
    }
    shell(
        dir,
        "chmod 777 . && : >roots && chmod 666 roots && : >own && chown 2000:2000 own",
    );
    assert!(!may(dir, "2000", "2000", "setfacl -m u:2001:r roots"));
    assert_eq!(list_of(dir, "roots"), "user::rw- group::rw- other::rw-");
    assert!(may(dir, "2000", "2000", "setfacl -m u:2001:r own"));
    assert!(may(dir, "2001", "2001", "cat own"));
    assert!(!may(dir, "2001", "2001", "setfacl -b own"));
}

fn an_owner_outside_the_group_loses_set_group_id(dir: &Path) {
    if !is_root() {
        return;
    }
    shell(dir, "chmod 777 . && mkdir a b && chown 2000:3000 a b && chmod 2770 a b");
    assert!(may(dir, "2000", "2000", "setfacl -m u:2001:r a"));
    assert!(may(dir, "2000", "2000,3000", "setfacl -m u:2001:r b"));
    assert_eq!(shell(dir, "stat -c %a a b"), "770\n2770\n");
}

fn lists_are_shown_copied_and_removed(dir: &Path) {
    shell(
        dir,
        ": >call && chmod 640 call && setfacl -m u:2000:rw call && mkdir d && setfacl -m d:u:2000:rx d",
    );
    assert_eq!(
        shell(dir, "getfattr -m - call d | grep system"),
        "system.posix_acl_access\nsystem.posix_acl_default\n"
    );
    assert!(shell(dir, "ls -ld call").starts_with("-rw-rw----+"));
    shell(dir, "cp -p call copied && mv call moved && ln moved linked");
    for name in ["copied", "moved", "linked"] {
        assert_eq!(
            list_of(dir, name),
            "user::rw- user:2000:rw- group::r-- mask::rw- other::---",
            "{name}"
        );
    }
    shell(dir, "setfacl -b moved && setfacl -k d");
    assert_eq!(list_of(dir, "linked"), "user::rw- group::r-- other::---");
    assert_eq!(list_of(dir, "d"), "user::rwx group::r-x other::r-x");
    let refused = command::output("setfacl", &["-m", "d:u:2000:r", "moved"], dir);
    assert!(!refused.status.success(), "files have no default list");
}

#[test]
fn lists_outlive_the_daemon() {
    let mut mount = Mount::new();
    let dir = mount.dir("acme");
    shell(&dir, "setfacl -m d:u:2000:rwx . && head -c 100000 /dev/zero >call");
    let (file, directory) = (list_of(&dir, "call"), list_of(&dir, "."));
    assert!(file.contains("user:2000:rwx"), "{file}");
    mount.remount();
    assert_eq!((list_of(&dir, "call"), list_of(&dir, ".")), (file.clone(), directory));
    mount.kill9();
    assert_eq!(list_of(&dir, "call"), file);
    run_in(&mount.point(), "sh", &["-c", "cd acme && : >after"]);
    assert!(
        list_of(&dir, "after").contains("user:2000:rwx"),
        "known again after a kill"
    );
    mount.finish();
}
