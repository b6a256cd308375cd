//! Litestream next to a live store, as docs/OPERATIONS.md says: no create fails, and what
//! it restores has every one that was acknowledged.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::task::block_in_place;

use crate::{
    creators::Creators,
    imports::{all_users, serve},
    support::{TEST_TIMEOUT, documented::examples},
};

/// The command of docs/OPERATIONS.md that begins so, with other places than there.
fn documented(begin: &str, file: &Path, replica: &Path) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/OPERATIONS.md")).unwrap();
    let mut shown = examples(&page).into_iter().map(|example| example.command);
    let shown = shown.find(|command| command.starts_with(begin)).expect("the page says how");
    let places = [("/data/user-service.db", file), ("/backup/litestream", replica)];
    let here =
        places.iter().fold(shown, |command, (there, here)| command.replace(there, here.to_str().unwrap()));
    let path = format!("{}:{}", root.join("bin").display(), env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    // In the shell's place, so that a signal goes to Litestream.
    let exec = if begin.starts_with('(') { "" } else { "exec " };
    command.args(["-c", &format!("umask 022; {exec}{here}")]).env("PATH", path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A running Litestream. Killed when dropped.
struct Replication(Child);

impl Replication {
    /// Returns when it has sent something.
    fn start(file: &Path, replica: &Path) -> Self {
        let before = arrived(replica);
        let litestream = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/litestream");
        assert!(litestream.exists(), "`make tools` makes {}", litestream.display());
        let this = Self(documented("litestream replicate", file, replica).spawn().unwrap());
        let end = Instant::now() + TEST_TIMEOUT;
        while arrived(replica).is_subset(&before) {
            assert!(Instant::now() < end, "nothing arrives at the replica");
            std::thread::sleep(Duration::from_millis(20));
        }
        this
    }

    /// Ends it as Kubernetes does: it sends what is left.
    fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        let end = Instant::now() + TEST_TIMEOUT;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "Litestream does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Replication {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The transactions that have arrived at the replica.
fn arrived(replica: &Path) -> BTreeSet<OsString> {
    // Level 0 has those that were not put together with others yet.
    let files = fs::read_dir(replica.join("ltx/0")).into_iter().flatten();
    files.map(|file| file.unwrap().file_name()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_create_is_in_what_litestream_restores() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (file, replica) = (path("users.db"), path("replica"));
    let (server, client) = serve(&format!("sqlite:{}", file.display())).await;
    let creators = Creators::start(&client);
    creators.more(200).await;
    let replication = block_in_place(|| Replication::start(&file, &replica));
    // Checkpoints of ours are due meanwhile.
    creators.more(2_000).await;
    let mut acknowledged = creators.stop().await;

    // The service first, then Litestream: the order in which the pod ends.
    assert!(block_in_place(|| server.stop()).success());
    block_in_place(|| replication.stop());
    assert_has_all(&restored(&path("restored.db"), &replica).await, &acknowledged);

    // And on from there, with a service that has the file anew.
    let (server, client) = serve(&format!("sqlite:{}", file.display())).await;
    let creators = Creators::start(&client);
    let replication = block_in_place(|| Replication::start(&file, &replica));
    creators.more(500).await;
    acknowledged.extend(creators.stop().await);
    // In the other order nothing is lost either: Litestream sends what was committed.
    block_in_place(|| replication.stop());
    assert!(block_in_place(|| server.stop()).success());
    assert_has_all(&restored(&path("restored-again.db"), &replica).await, &acknowledged);
}

fn assert_has_all(restored: &BTreeSet<String>, acknowledged: &BTreeSet<String>) {
    let missing = acknowledged.difference(restored).count();
    assert!(restored == acknowledged, "{} of {} are missing", missing, acknowledged.len());
}

/// The users that a service finds in what Litestream restores.
async fn restored(file: &Path, replica: &Path) -> BTreeSet<String> {
    let restore = block_in_place(|| documented("(umask 077; litestream restore", file, replica).status());
    assert!(restore.unwrap().success());
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "nobody else's");
    let (server, mut client) = serve(&format!("sqlite:{}", file.display())).await;
    let users = all_users(&mut client).await;
    assert!(block_in_place(|| server.stop()).success());
    users.into_iter().map(|user| user.id).collect()
}
