//! The place of an SQLite file, and its lock: one process at a time, and no network file system.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, OFlags, StatxAttributes, StatxFlags};

/// The reason why a database file is refused.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseFileError {
    #[error(
        "the database {} is in use by another process, which holds {}: stop that one first (`fuser {}` says which it is)",
        database.display(), lock.display(), lock.display()
    )]
    InUse { database: PathBuf, lock: PathBuf },
    #[error("cannot lock {}: {source}", lock.display())]
    Lock { lock: PathBuf, source: io::Error },
    #[error(
        "the database {} is on a network file system ({kind}), where SQLite loses data: put data_dir or database.url on a \
         local disk, or use PostgreSQL",
        database.display()
    )]
    Network { database: PathBuf, kind: String },
    #[error(
        "the database {} has {links} names (hard links): another server may have it under another name, and its log is beside \
         only one of them; stop the process that uses it, and remove the other names",
        database.display()
    )]
    Linked { database: PathBuf, links: u64 },
    #[error(
        "the database {} is mounted as a single file, so its log is beside another name of it, and another server may have it \
         there: mount its directory",
        database.display()
    )]
    Mounted { database: PathBuf },
    #[error(
        "the database {} is not locked by the process that holds {}: if the file was replaced, stop the server and put its file \
         back; if the server is of an earlier version, use the program of that server, or stop the server first",
        database.display(), lock.display()
    )]
    NotLocked { database: PathBuf, lock: PathBuf },
    #[error(
        "the database {} is in use by a server of an earlier version, which holds {}: use the program of that server, or stop \
         the server first",
        database.display(), lock.display()
    )]
    EarlierVersion { database: PathBuf, lock: PathBuf },
    #[error("the file system of {} cannot be determined: {source}", database.display())]
    Unknown { database: PathBuf, source: io::Error },
}

/// The claim of this process on a database file: a lock on the file `<database>.lock` beside it, and one on the database file
/// itself, by whatever path others reach it. The system releases both when the process ends, however it ends; the files stay.
///
/// The claim may not be dropped while SQLite has the file open: a process that closes any descriptor of a file loses the locks
/// of SQLite on it.
#[derive(Debug)]
pub struct DatabaseLock {
    lock: Option<File>,
    file: Option<File>,
}

/// The content of a lock file whose process locks the database file, too. The process removes it at a clean end.
const SIGN: &[u8] = b"The database file is locked, too.\n";

/// A lock may be held for a moment by a backup that looks whether it is free.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// The numbers that `statfs` returns for file systems (linux/magic.h and their sources), and their names. On these, locks
/// and shared memory do not reach the other machines, or writes are not durable when they seem so.
const NETWORK: [(u32, &str); 19] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB 2"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x2003_0528, "OrangeFS"),
    (0x1983_0326, "BeeGFS"),
    (0xaad7_aaea, "PanFS"),
    (0x013f_a11e, "vboxsf"),
    (0x786f_4256, "vboxsf"),
];

/// The number that `statfs` returns for any file system in user space (FUSE); the list of mounts names it.
const FUSE: u32 = 0x6573_5546;

/// File systems in user space, as the list of mounts names them, that are on the network.
const NETWORK_FUSE: [&str; 27] = [
    "fuse.afp",
    "fuse.afpfs",
    "fuse.blobfuse",
    "fuse.blobfuse2",
    "fuse.ceph",
    "fuse.ceph-fuse",
    "fuse.curlftpfs",
    "fuse.cvmfs2",
    "fuse.davfs",
    "fuse.gcsfuse",
    "fuse.geesefs",
    "fuse.glusterfs",
    "fuse.goofys",
    "fuse.gvfsd-fuse",
    "fuse.hdfs",
    "fuse.httpdirfs",
    "fuse.juicefs",
    "fuse.mfs",
    "fuse.mountpoint-s3",
    "fuse.nfs-ganesha",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.seaweedfs",
    "fuse.smbnetfs",
    "fuse.sshfs",
    "fuse.vmhgfs-fuse",
    "virtiofs",
];

/// Refuses a database file on a network file system.
///
/// # Errors
/// [`DatabaseFileError::Network`], or what the system says of the nearest directory that exists.
pub fn refuse_network(database: &Path) -> Result<(), DatabaseFileError> {
    let unknown = |source| DatabaseFileError::Unknown { database: database.to_owned(), source };
    let place = nearest(database).map_err(unknown)?;
    let magic = rustix::fs::statfs(&place).map_err(|error| unknown(error.into()))?.f_type;
    // The numbers have 32 bits; where the field has 64, it may be extended by its sign.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the low bits are what counts")]
    let magic = magic as u32;
    let kind = if magic == FUSE {
        let device = std::fs::metadata(&place).map_err(unknown)?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        mounted_kind(&std::fs::read_to_string("/proc/self/mountinfo").map_err(unknown)?, major, minor)
    } else {
        String::new()
    };
    match network_kind(magic, &kind) {
        Some(kind) => Err(DatabaseFileError::Network { database: database.to_owned(), kind }),
        None => Ok(()),
    }
}

/// Refuses a database file that has a second name: lock and log are beside the name by which it was opened.
///
/// # Errors
/// [`DatabaseFileError::Linked`].
pub fn refuse_second_name(database: &Path) -> Result<(), DatabaseFileError> {
    match std::fs::metadata(database) {
        Ok(metadata) if metadata.is_file() && metadata.nlink() > 1 => {
            Err(DatabaseFileError::Linked { database: database.to_owned(), links: metadata.nlink() })
        }
        _ => Ok(()),
    }
}

/// Refuses a database file that is mounted by itself: its log and its lock would be in the directory of the mount, and not
/// in that of the file.
///
/// # Errors
/// [`DatabaseFileError::Mounted`], or the system does not say.
pub fn refuse_mount(database: &Path) -> Result<(), DatabaseFileError> {
    let unknown = |source| DatabaseFileError::Unknown { database: database.to_owned(), source };
    if !database.is_file() {
        return Ok(());
    }
    let is_mount = match rustix::fs::statx(CWD, database, AtFlags::empty(), StatxFlags::empty()) {
        Ok(found) if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        }
        // The kernel is older than 5.8.
        _ => {
            let path = std::fs::canonicalize(database).map_err(unknown)?;
            is_mount_point(&std::fs::read_to_string("/proc/self/mountinfo").map_err(unknown)?, &path)
        }
    };
    if is_mount { Err(DatabaseFileError::Mounted { database: database.to_owned() }) } else { Ok(()) }
}

/// Refuses a database file that is not the one of the server that runs on its path: the claim of that server is on another
/// file. Without a server any file will do. Servers of earlier versions lock only the file beside the database, so it is not
/// known which database file they have. They leave the lock file as it is: empty, unless a process that signed it was killed.
///
/// # Errors
/// [`DatabaseFileError::NotLocked`] or [`DatabaseFileError::EarlierVersion`].
pub fn refuse_replaced(database: &Path) -> Result<(), DatabaseFileError> {
    let lock = lock_file(database);
    for attempt in 0..ATTEMPTS {
        // A server that is starting has one lock a moment before the other.
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        if is_locked(database) || !is_locked(&lock) {
            return Ok(());
        }
    }
    let is_signed = std::fs::metadata(&lock).is_ok_and(|lock| lock.len() > 0);
    let database = database.to_owned();
    Err(match is_signed {
        true => DatabaseFileError::NotLocked { database, lock },
        false => DatabaseFileError::EarlierVersion { database, lock },
    })
}

/// Returns whether a process holds the lock on a file.
fn is_locked(path: &Path) -> bool {
    let file = OpenOptions::new().read(true).custom_flags(flags(OFlags::NONBLOCK)).open(path);
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The name of a network file system; `None` for any other. `mounted` is its name in the list of mounts, which only counts
/// for file systems in user space.
fn network_kind(magic: u32, mounted: &str) -> Option<String> {
    if magic == FUSE {
        return NETWORK_FUSE.contains(&mounted).then(|| mounted.to_owned());
    }
    NETWORK.iter().find(|(known, _)| *known == magic).map(|(_, name)| (*name).to_owned())
}

/// The name of the file system of a device in `/proc/self/mountinfo` (proc_pid_mountinfo(5)); empty if it is not there.
fn mounted_kind(mounts: &str, major: u32, minor: u32) -> String {
    let device = format!("{major}:{minor}");
    let mut of_device = mounts.lines().filter(|line| line.split(' ').nth(2) == Some(device.as_str()));
    let kind = of_device.next().and_then(|line| line.split_once(" - ")?.1.split(' ').next());
    kind.unwrap_or_default().to_owned()
}

/// Returns whether `/proc/self/mountinfo` lists a mount at a path. Octal numbers replace blanks and the like there.
fn is_mount_point(mounts: &str, path: &Path) -> bool {
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => escaped.extend(format!("\\{byte:03o}").bytes()),
            _ => escaped.push(*byte),
        }
    }
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| point.as_bytes() == escaped))
}

/// The path itself, or the nearest directory above it that exists.
fn nearest(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    path.ancestors()
        .find(|path| path.exists())
        .map(Path::to_owned)
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

// === impl DatabaseLock ===

impl DatabaseLock {
    /// Takes the locks on the files that are there already: a process that is refused later for another reason has written nothing.
    ///
    /// # Errors
    /// [`DatabaseFileError::InUse`], or a lock cannot be had for another reason.
    pub fn take_existing(database: &Path) -> Result<Self, DatabaseFileError> {
        let lock = lock_file(database);
        // A link would make the process lock something else.
        let file = OpenOptions::new().write(true).custom_flags(flags(OFlags::NOFOLLOW)).open(&lock);
        let mut claim = Self { lock: locked(file, database, lock)?, file: None };
        claim.take_file(database)?;
        Ok(claim)
    }

    /// Takes the lock beside the database; its file is created if it is missing, in a directory that exists.
    ///
    /// # Errors
    /// As [`DatabaseLock::take_existing`].
    pub fn take_lock(&mut self, database: &Path) -> Result<(), DatabaseFileError> {
        if self.lock.is_none() {
            let lock = lock_file(database);
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags(OFlags::NOFOLLOW));
            self.lock = locked(options.open(&lock), database, lock)?;
        }
        // If the disk is full, only the text of a refusal differs.
        let _ = self.lock.as_ref().map(|lock| lock.write_all_at(SIGN, 0));
        Ok(())
    }

    /// Empties the lock file, because the next process may be of an earlier version, which does not lock the database file. The
    /// locks stay.
    pub fn unsign(&self) {
        // If this fails, only the text of a refusal differs.
        let _ = self.lock.as_ref().map(|lock| lock.set_len(0));
    }

    /// Takes the lock on the database file, if it is there.
    ///
    /// # Errors
    /// As [`DatabaseLock::take_existing`].
    pub fn take_file(&mut self, database: &Path) -> Result<(), DatabaseFileError> {
        if self.file.is_none() {
            let file = OpenOptions::new().read(true).custom_flags(flags(OFlags::NONBLOCK)).open(database);
            self.file = locked(file, database, database.to_owned())?;
        }
        Ok(())
    }

    /// Returns whether the database file exists and is locked by this process.
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }
}

/// The file with an exclusive lock; `None` if it is not there.
fn locked(file: io::Result<File>, database: &Path, lock: PathBuf) -> Result<Option<File>, DatabaseFileError> {
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DatabaseFileError::Lock { lock, source }),
    };
    for _ in 0..ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(source)) => return Err(DatabaseFileError::Lock { lock, source }),
        }
    }
    Err(DatabaseFileError::InUse { database: database.to_owned(), lock })
}

/// The file is beside the database file itself, whatever links lead there.
fn lock_file(database: &Path) -> PathBuf {
    let link = std::fs::symlink_metadata(database).is_ok_and(|metadata| metadata.is_symlink());
    let resolved = if link { std::fs::canonicalize(database).ok() } else { None };
    let mut path = resolved.unwrap_or_else(|| database.to_owned()).into_os_string();
    path.push(".lock");
    path.into()
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_number_and_those_in_user_space_by_name() {
        for (magic, mounted, expected) in [
            (0x6969, "nfs4", Some("NFS")),
            (0xff53_4d42, "cifs", Some("CIFS")),
            (0xfe53_4d42, "smb3", Some("SMB 2")),
            (0x0102_1997, "9p", Some("9p")),
            (0x00c3_6400, "ceph", Some("Ceph")),
            (FUSE, "fuse.sshfs", Some("fuse.sshfs")),
            (FUSE, "fuse.glusterfs", Some("fuse.glusterfs")),
            (FUSE, "virtiofs", Some("virtiofs")),
            (FUSE, "fuse.gocryptfs", None),
            (FUSE, "fuseblk", None),
            (FUSE, "", None),
            (0xef53, "ext4", None),
            (0x5846_5342, "xfs", None),
            (0x9123_683e, "btrfs", None),
            (0x0102_1994, "tmpfs", None),
            (0x794c_7630, "overlay", None),
            (0x2fc1_2fc1, "zfs", None),
            // The name counts in user space only.
            (0xef53, "fuse.sshfs", None),
        ] {
            assert_eq!(network_kind(magic, mounted).as_deref(), expected, "{magic:#x} {mounted}");
        }
    }

    #[test]
    fn the_list_of_mounts_tells_file_systems_in_user_space_apart() {
        let mounts = "\
24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
61 24 0:52 / /srv/a\\040b rw,nosuid shared:31 master:2 - fuse.sshfs me@host:/x rw,user_id=0
62 24 0:5 / /srv/c rw - fuse.gocryptfs /crypt rw";
        assert_eq!(mounted_kind(mounts, 0, 52), "fuse.sshfs");
        assert_eq!(mounted_kind(mounts, 0, 5), "fuse.gocryptfs");
        assert_eq!(mounted_kind(mounts, 254, 0), "ext4");
        assert_eq!(mounted_kind(mounts, 0, 53), "");
    }

    #[test]
    fn a_local_directory_will_do_even_if_it_is_not_there_yet() {
        let directory = tempfile::tempdir().unwrap();
        refuse_network(&directory.path().join("not/there/yet.sqlite3")).unwrap();
        refuse_network(Path::new("relative.sqlite3")).unwrap();
    }

    #[test]
    fn the_list_of_mounts_tells_a_file_that_is_mounted() {
        let mounts = "\
24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
61 24 254:0 /d/a.sqlite3 /srv/a\\040b/a.sqlite3 rw - ext4 /dev/vda rw";
        assert!(is_mount_point(mounts, Path::new("/srv/a b/a.sqlite3")));
        assert!(!is_mount_point(mounts, Path::new("/srv/a b")));
        assert!(!is_mount_point(mounts, Path::new("/d/a.sqlite3")));
        let directory = tempfile::tempdir().unwrap();
        refuse_mount(&directory.path().join("none.sqlite3")).unwrap();
        std::fs::write(directory.path().join("a.sqlite3"), "").unwrap();
        refuse_mount(&directory.path().join("a.sqlite3")).unwrap();
    }

    /// The claim of a server.
    fn claim(database: &Path) -> Result<DatabaseLock, DatabaseFileError> {
        let mut claim = DatabaseLock::take_existing(database)?;
        claim.take_lock(database)?;
        Ok(claim)
    }

    #[test]
    fn a_database_has_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("a.sqlite3");
        assert!(DatabaseLock::take_existing(&database).unwrap().lock.is_none());
        assert!(!lock_file(&database).exists());
        let mut first = claim(&database).unwrap();
        let refused = claim(&database).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, DatabaseFileError::InUse { .. }) && text.contains("a.sqlite3.lock"), "{text}");
        claim(&directory.path().join("b.sqlite3")).unwrap();
        std::fs::write(&database, "").unwrap();
        let link = directory.path().join("link.sqlite3");
        std::os::unix::fs::symlink(&database, &link).unwrap();
        claim(&link).unwrap_err();
        assert!(!first.has_file());
        first.take_file(&database).unwrap();
        assert!(first.has_file());
        drop(first);
        claim(&database).unwrap();
    }

    /// The file of the lock can be removed, and the database can be reached by another path, beside which there is none.
    #[test]
    fn the_database_file_itself_is_locked() {
        let directory = tempfile::tempdir().unwrap();
        let (database, other) = (directory.path().join("a.sqlite3"), directory.path().join("b.sqlite3"));
        std::fs::write(&database, "").unwrap();
        std::fs::hard_link(&database, &other).unwrap();
        let first = claim(&database).unwrap();
        std::fs::remove_file(lock_file(&database)).unwrap();
        for path in [&database, &other] {
            assert!(matches!(claim(path).unwrap_err(), DatabaseFileError::InUse { .. }));
            assert!(!lock_file(path).exists(), "a refused claim makes nothing");
        }
        drop(first);
        claim(&other).unwrap();
    }

    #[test]
    fn a_file_that_is_not_the_one_of_the_server_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("a.sqlite3");
        std::fs::write(&database, "").unwrap();
        refuse_replaced(&database).unwrap();
        let server = claim(&database).unwrap();
        refuse_replaced(&database).unwrap();
        std::fs::rename(&database, directory.path().join("aside")).unwrap();
        std::fs::write(&database, "").unwrap();
        let is_not_locked = |refused| matches!(refused, Err(DatabaseFileError::NotLocked { .. }));
        assert!(is_not_locked(refuse_replaced(&database)));
        drop(server);
        refuse_replaced(&database).unwrap();
        // An earlier version leaves the file as it is.
        let earlier = File::options().write(true).open(lock_file(&database)).unwrap();
        earlier.lock().unwrap();
        assert!(is_not_locked(refuse_replaced(&database)), "the server was killed");
        drop(earlier);
        claim(&database).unwrap().unsign();
        let earlier = File::options().write(true).open(lock_file(&database)).unwrap();
        earlier.lock().unwrap();
        assert!(matches!(refuse_replaced(&database).unwrap_err(), DatabaseFileError::EarlierVersion { .. }));
    }
}
