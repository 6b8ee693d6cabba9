//! Listening sockets: TCP and Unix. What is read from a Unix socket is HTTP/2 in the clear: it is never TLS.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use uuid::Uuid;

use super::authority::AuthorityFilter;
use crate::call::peer::Peer;

/// A socket that connections come from.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, path: PathBuf, file: FileId },
}

/// The device and the inode of a socket.
type FileId = (u64, u64);

/// A connection that was just accepted.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream, AuthorityFilter),
}

/// The reason why a socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {source}")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error("cannot listen on {}: {source}", path.display())]
    Unix { path: PathBuf, source: io::Error },
    #[error("{} is used by a process that is running, or is not a socket", .0.display())]
    InUse(PathBuf),
}

// === impl Listener ===

impl Listener {
    /// Listens on an address.
    pub(crate) async fn tcp(address: SocketAddr) -> Result<Self, ListenError> {
        let bound = TcpListener::bind(address).await;
        bound.map(Listener::Tcp).map_err(|source| ListenError::Tcp { address, source })
    }

    /// Listens on a path. A socket that a dead process left behind is replaced. A live one is not, even if it accepts no
    /// connections at the moment.
    pub(crate) async fn unix(path: &Path, mode: u32) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Unix { path: path.to_owned(), source };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Of two servers that start at once, only one may find that the process of a socket is dead.
        let _alone = lock(directory.to_owned()).await.map_err(failed)?;
        Self::refuse_used(path).await?;
        // It has another name until its permissions are set, so that no client can connect before. The name is short, because
        // the path of a socket may not be long.
        let id = Uuid::now_v7().simple().to_string();
        let random = id.split_at(24).1;
        let hidden = directory.join(format!(".{random}"));
        let listener = UnixListener::bind(&hidden).map_err(failed)?;
        let shown = std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(mode))
            .and_then(|()| file_id(&hidden))
            .and_then(|file| std::fs::rename(&hidden, path).map(|()| file));
        let file = shown.map_err(|error| {
            let _ = std::fs::remove_file(&hidden);
            failed(error)
        })?;
        Ok(Listener::Unix { listener, path: path.to_owned(), file })
    }

    /// Refuses the path of a socket that a process listens on, and of a file that is not a socket.
    pub(crate) async fn refuse_used(path: &Path) -> Result<(), ListenError> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => {
                let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
                if !metadata.file_type().is_socket() || !UnixStream::connect(path).await.is_err_and(refused) {
                    return Err(ListenError::InUse(path.to_owned()));
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(ListenError::Unix { path: path.to_owned(), source }),
        }
    }

    /// Returns the address, which has the port that the system chose.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix { .. } => None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                // Responses are written whole; waiting to fill a packet only adds delay.
                socket.set_nodelay(true)?;
                Ok((Socket::Tcp(socket), Peer::Tcp(address)))
            }
            Listener::Unix { listener, .. } => {
                let (socket, _) = listener.accept().await?;
                Ok((Socket::Unix(socket, AuthorityFilter::new()), Peer::Unix))
            }
        }
    }
}

impl Drop for Listener {
    /// Another server may have put its own socket there meanwhile.
    fn drop(&mut self) {
        if let Listener::Unix { path, file, .. } = self
            && file_id(path).is_ok_and(|there| there == *file)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A lock on a directory, until it is dropped.
async fn lock(directory: PathBuf) -> io::Result<std::fs::File> {
    let locking = tokio::task::spawn_blocking(move || {
        let directory = std::fs::File::open(directory)?;
        directory.lock()?;
        Ok(directory)
    });
    locking.await?
}

fn file_id(path: &Path) -> io::Result<FileId> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

// === impl Socket ===

impl Socket {
    /// Returns the address of this end; a Unix socket has none.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = match self.get_mut() {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Unix(socket, filter) => {
                let before = buf.filled().len();
                let polled = Pin::new(socket).poll_read(cx, buf);
                filter.pass(&mut buf.filled_mut()[before..]);
                polled
            }
        };
        if polled.is_pending() {
            // TLS reads into one buffer and decrypts in it. While there is nothing to read, what it has decrypted is wiped.
            buf.initialize_unfilled().fill(0);
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Socket::Unix(socket, _) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Socket::Unix(socket, _) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Unix(socket, _) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket, _) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

    use super::*;

    #[tokio::test]
    async fn a_socket_that_another_server_has_put_there_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let first = Listener::unix(&path, 0o600).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Listener::unix(&path, 0o600).await.unwrap();
        drop(first);
        assert!(path.exists(), "it is the one of the second server");
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_two_that_start_at_once_one_replaces_the_socket_of_a_dead_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let (runtime, barrier) = (tokio::runtime::Handle::current(), std::sync::Barrier::new(2));
        for _ in 0..1_000 {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let start = || {
                barrier.wait();
                runtime.block_on(Listener::unix(&path, 0o600))
            };
            let (first, second) = tokio::task::block_in_place(|| {
                std::thread::scope(|scope| {
                    let first = scope.spawn(start);
                    let second = scope.spawn(start);
                    (first.join().unwrap(), second.join().unwrap())
                })
            });
            assert!(matches!(
                (&first, &second),
                (Ok(_), Err(ListenError::InUse(_))) | (Err(ListenError::InUse(_)), Ok(_))
            ));
            UnixStream::connect(&path).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_start_removes_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        std::fs::write(directory.path().join("a.sock.new"), "a text").unwrap();
        drop(Listener::unix(&path, 0o600).await.unwrap());
        let names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a.sock.new"]);
    }

    #[tokio::test]
    async fn a_socket_whose_server_is_busy_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let address = SocketAddrUnix::new(&path).unwrap();
        let socket = || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        let server = socket();
        bind(&server, &address).unwrap();
        listen(&server, 0).unwrap();
        let mut waiting = Vec::new();
        let full = loop {
            waiting.push(socket());
            if let Err(error) = connect(waiting.last().unwrap(), &address) {
                break error;
            }
        };
        assert_eq!(full, rustix::io::Errno::AGAIN);
        let refused = Listener::unix(&path, 0o600).await.unwrap_err();
        assert!(matches!(refused, ListenError::InUse(_)), "{refused}");
        drop((server, waiting));
        Listener::unix(&path, 0o600).await.unwrap();
    }
}
