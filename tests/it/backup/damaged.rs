//! Backups that were damaged: each change of a file or of a row in it is found.

use std::path::Path;
use std::sync::Arc;

use jackfield_api::v1;
use jackfield_testkit::fixture::strings;
use jackfield_testkit::{Backend, Program, Rng, Site};
use tokio::task::JoinSet;

use super::{Writing, altered, fails, succeeds, text};
use crate::steps;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_backup_is_detected() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let writing = Writing::start(&process).await;
    writing.end().await;
    process.stop();
    // No server needs to be running.
    let backup = site.directory().join("backup.sqlite3");
    succeeds(&site.run(&["backup", "--to", text(&backup)]));
    let check = |path: &Path| site.run(&["check-backup", text(path)]);
    succeeds(&check(&backup));

    let one = "(SELECT owner_id FROM secret ORDER BY owner_id LIMIT 1)";
    let secret = format!("UPDATE secret SET sealed = zeroblob(length(sealed)) WHERE owner_id = {one}");
    fails(&check(&altered(&backup, "secret", &secret).await), "does not open");
    let moved = format!(
        "UPDATE secret SET sealed = (SELECT sealed FROM secret ORDER BY owner_id DESC LIMIT 1) WHERE owner_id = {one}"
    );
    fails(&check(&altered(&backup, "moved", &moved).await), "does not open");
    let key =
        "UPDATE data_key SET wrapped = zeroblob(length(wrapped)) WHERE id = (SELECT max(data_key_id) FROM secret)";
    fails(&check(&altered(&backup, "key", key).await), "does not open the data key");
    let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_later', 0)";
    fails(&check(&altered(&backup, "newer", newer).await), "the schema is newer than this program");
    fails(&check(&site.directory().join("nowhere")), "is not a reliable backup");

    let bytes = std::fs::read(&backup).unwrap();
    let cut = site.directory().join("cut");
    std::fs::write(&cut, &bytes[..bytes.len() / 8192 * 4096]).unwrap();
    fails(&check(&cut), "it is damaged: ");
    // Truncates it at lengths that leave the header, also in the middle of a page.
    for length in [16, 99, 100, 1_000, 4_096, 5_000, 3 * 4_096, bytes.len() - 4_096, bytes.len() - 1] {
        std::fs::write(&cut, &bytes[..length]).unwrap();
        fails(&check(&cut), "it is damaged: ");
    }
    // The file of the database itself is damaged.
    std::fs::write(site.sqlite_file(), &bytes[..bytes.len() - 4_096]).unwrap();
    fails(&site.run(&["serve"]), "the database is damaged: ");
    fails(&site.run(&["backup", "--to", "of-damaged"]), "the database is damaged: ");
    std::fs::write(site.sqlite_file(), &bytes).unwrap();
    // Overwrites every eighth page, so that some of them contain rows or an index.
    let mut scribbled = bytes.clone();
    for page in (1..bytes.len() / 4096).step_by(8) {
        scribbled[page * 4096..page * 4096 + 64].fill(0xa5);
    }
    let path = site.directory().join("scribbled");
    std::fs::write(&path, scribbled).unwrap();
    fails(&check(&path), "it is damaged: ");
    let empty = site.directory().join("empty");
    std::fs::write(&empty, "").unwrap();
    fails(&check(&empty), "it holds no data of Jackfield");
    let text_file = site.directory().join("no.sqlite3");
    std::fs::write(&text_file, "a text that is longer than the first words of a database").unwrap();
    fails(&check(&text_file), "it is not an SQLite database");
    let pipe = site.directory().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fails(&check(&pipe), "it is not a regular file");
    // The digest left behind by a moved backup is neither replaced nor used for another backup.
    std::fs::rename(&backup, site.directory().join("moved.sqlite3")).unwrap();
    fails(&site.run(&["backup", "--to", text(&backup)]), "backup.sqlite3.sha256 exists already");
    assert!(!backup.exists());
}

/// SQLite has no checksums, so a flipped bit in a page looks like any other value.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flipped_bit_is_detected() {
    const FLIPS: usize = 600;
    let site = Arc::new(Site::new(Backend::Sqlite, Program::Jackfield));
    site.prepare().await;
    let process = site.start();
    Writing::start(&process).await.end().await;
    process.stop();
    let backup = site.directory().join("backup.sqlite3");
    succeeds(&site.run(&["backup", "--to", text(&backup)]));
    let (bytes, digest) =
        (std::fs::read(&backup).unwrap(), std::fs::read(site.directory().join("backup.sqlite3.sha256")).unwrap());
    let mut rng = Rng::new(0x6a61_636b);
    let bits: Vec<u64> = (0..FLIPS).map(|_| rng.below(8 * bytes.len() as u64)).collect();
    let mut work = JoinSet::new();
    for (half, bits) in bits.chunks(FLIPS / 2).map(<[u64]>::to_vec).enumerate() {
        let (site, mut bytes, digest) = (Arc::clone(&site), bytes.clone(), digest.clone());
        work.spawn_blocking(move || {
            let path = site.directory().join(format!("flipped-{half}"));
            std::fs::write(site.directory().join(format!("flipped-{half}.sha256")), digest).unwrap();
            for bit in bits {
                let (byte, mask) = (usize::try_from(bit / 8).unwrap(), 1 << (bit % 8));
                bytes[byte] ^= mask;
                std::fs::write(&path, &bytes).unwrap();
                fails(&site.run(&["check-backup", text(&path)]), "it has changed since it was made");
                bytes[byte] ^= mask;
            }
            std::fs::write(&path, &bytes).unwrap();
            succeeds(&site.run(&["check-backup", text(&path)]));
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
}

/// Without its digest, a file is checked row by row: each row must agree with its document and with related rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_disagrees_with_its_document_is_detected() {
    let site = Site::new(Backend::Sqlite, Program::Jackfield);
    site.prepare().await;
    let process = site.start();
    let client = process.client("alpha");
    let mut connector = jackfield_testkit::fixture::a_connector("Ärger");
    connector.description = Some("for the board".to_owned());
    connector.headers = strings([("x-one", "two")]);
    connector.labels = strings([("team", "a")]);
    let request_id = uuid::Uuid::now_v7().to_string();
    let request = v1::CreateConnectorRequest { connector: Some(connector), request_id, ..Default::default() };
    let connector = client.connectors().create_connector(request).await.unwrap().into_inner().connector.unwrap();
    let link = steps::link(&client, "ada", &connector.id).await;
    steps::api_key(&client, &link, "token").await;
    process.stop();
    let backup = site.directory().join("backup.sqlite3");
    succeeds(&site.run(&["backup", "--to", text(&backup)]));
    let check = |path: &Path| site.run(&["check-backup", text(path)]);
    let (id, doc) = (connector.id.as_str(), "UPDATE connector SET doc = replace(doc, ");
    for (statement, reason) in [
        (format!("{doc}'two', 'tvo')"), "its column search_text and its document disagree"),
        (format!("{doc}'board', 'bnard')"), "its column description and its document disagree"),
        (format!("{doc}'\"version\":1', '\"version\":3')"), "its column version and its document disagree"),
        ("UPDATE connector SET doc = '{'".to_owned(), "its document cannot be read"),
        (
            "UPDATE connector SET doc = replace(doc, '\"headers\"', '\"heeders\"')".to_owned(),
            "its column doc and its document disagree",
        ),
        ("UPDATE connector SET name_key = 'erger'".to_owned(), "its column name_key and its document disagree"),
        ("UPDATE connector SET enabled = 0".to_owned(), "its column enabled and its document disagree"),
        (
            "UPDATE connector SET update_time = update_time + 1".to_owned(),
            "its column update_time and its document disagree",
        ),
        ("UPDATE connector SET folded = '{}'".to_owned(), "its column folded and its document disagree"),
        ("UPDATE label SET label_value = 'b'".to_owned(), "its labels and its document disagree"),
        ("DELETE FROM label".to_owned(), "its labels and its document disagree"),
    ] {
        let output = check(&altered(&backup, "altered", &statement).await);
        fails(&output, &format!("connector {id} of tenant "));
        fails(&output, reason);
    }
    for (statement, reason) in [
        (
            "INSERT INTO label SELECT tenant_id, owner, randomblob(16), label_key, label_value FROM label",
            "labels that belong to no resource: 1",
        ),
        ("UPDATE idempotency SET answer = substr(answer, 2)", "is not JSON"),
        (
            "UPDATE idempotency SET answer = replace(answer, '\"name\":', '\"nome\":') WHERE method = 'CreateConnector'",
            "(CreateConnector) is not the resource that the method returns",
        ),
        ("UPDATE idempotency SET answer = CAST(x'7bff7d' AS TEXT)", "it is damaged: "),
        ("UPDATE label SET label_value = CAST(x'ff' AS TEXT)", "it is damaged: "),
        ("UPDATE connector SET doc = CAST(x'7bff7d' AS TEXT)", "of connector cannot be read"),
        (
            "UPDATE data_key SET id = randomblob(16) WHERE id NOT IN (SELECT data_key_id FROM secret)",
            "does not open the data key",
        ),
    ] {
        fails(&check(&altered(&backup, "altered", statement).await), reason);
    }
    // An answer whose time has passed is never read again.
    let expired = "UPDATE idempotency SET answer = '{', expire_time = 1";
    succeeds(&check(&altered(&backup, "altered", expired).await));
    // The copies have no other faults, and the command says what it cannot detect.
    let said = succeeds(&check(&altered(&backup, "altered", "UPDATE audit_event SET purpose = ''").await));
    assert!(said.contains("There is no ") && said.contains("altered.sha256"), "{said}");
    let digest = site.directory().join("altered.sha256");
    for text in ["", "no digest\n"] {
        std::fs::write(&digest, text).unwrap();
        fails(
            &check(&site.directory().join("altered")),
            "holds no digest: 64 hexadecimal digits, two blanks and a name",
        );
    }
}
