//! Stands between the gateway and a server behind it, and fails as networks and servers do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to connections. A change ends those that stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bytes pass.
    Pass,
    /// Nobody listens.
    Refuse,
    /// Everything is taken and nothing is ever said.
    Silent,
    /// A request is read and the connection reset.
    Reset,
    /// So many bytes of an answer pass, then silence.
    Stall(usize),
    /// So many bytes of an answer pass, then the connection ends.
    Cut(usize),
    /// A request is read and this is said instead of an answer.
    Say(String),
}

/// One way to one server.
#[derive(Clone)]
pub struct Tap {
    pub port: u16,
    standing: Arc<AtomicUsize>,
    /// Whether somebody listens.
    open: watch::Sender<bool>,
    mode: watch::Sender<Mode>,
    target: watch::Sender<u16>,
    tls: watch::Sender<Option<Arc<rustls::ServerConfig>>>,
}

impl Tap {
    /// A way to a port of the loopback that lets bytes pass.
    pub async fn to(target: u16) -> Self {
        // It is left and taken again, so no outgoing connection may get it meanwhile.
        let port = perses_sidecar_stack::servers::free_port().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let tap = Self {
            port,
            standing: Arc::default(),
            open: watch::channel(true).0,
            mode: watch::channel(Mode::Pass).0,
            target: watch::channel(target).0,
            tls: watch::channel(None).0,
        };
        tokio::spawn(tap.clone().run(listener));
        tap
    }

    /// From now on this happens; returns when somebody listens, or nobody does any more.
    pub async fn set(&self, mode: Mode) {
        let open = mode != Mode::Refuse;
        self.mode.send_replace(mode);
        let mut opened = self.open.subscribe();
        let _ = tokio::time::timeout(Duration::from_secs(5), opened.wait_for(|now| *now == open)).await.unwrap();
        self.cleared().await;
    }

    /// Waits until the connections from before have ended, as far as no new ones come.
    async fn cleared(&self) {
        for _ in 0..100 {
            if self.standing.load(Ordering::SeqCst) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// From now on this is what lies behind; connections that stand end.
    pub async fn turn_to(&self, port: u16) {
        self.target.send_replace(port);
        self.mode.send_modify(|_| ());
        self.cleared().await;
    }

    /// From now on TLS is spoken towards the gateway.
    pub async fn speak_tls(&self, config: Arc<rustls::ServerConfig>) {
        self.tls.send_replace(Some(config));
        self.mode.send_modify(|_| ());
        self.cleared().await;
    }

    async fn run(self, listener: TcpListener) {
        let address = listener.local_addr().unwrap();
        let mut listener = Some(listener);
        let mut modes = self.mode.subscribe();
        loop {
            if *modes.borrow_and_update() == Mode::Refuse {
                listener = None;
                self.open.send_replace(false);
                modes.changed().await.unwrap();
                continue;
            }
            let open = match listener.take() {
                Some(open) => open,
                None => bind(address).await,
            };
            self.open.send_replace(true);
            tokio::select! {
                accepted = open.accept() => {
                    if let Ok((socket, _)) = accepted {
                        // The mode may have changed since the loop looked.
                        let mut changes = self.mode.subscribe();
                        let mode = changes.borrow_and_update().clone();
                        self.standing.fetch_add(1, Ordering::SeqCst);
                        tokio::spawn(self.clone().connection(socket, mode, changes));
                    }
                }
                _ = modes.changed() => {}
            }
            listener = Some(open);
        }
    }

    async fn connection(self, socket: TcpStream, mode: Mode, mut changes: watch::Receiver<Mode>) {
        let tls = self.tls.borrow().clone();
        let (target, over) = (*self.target.borrow(), mode.clone());
        let talk = async {
            match tls {
                None if over == Mode::Reset => {
                    let mut socket = socket;
                    let _ = socket.read(&mut [0; 4096]).await;
                    // What is left unread makes the kernel answer with a reset.
                    let _ = socket.set_zero_linger();
                }
                None => serve(socket, target, over).await.unwrap_or_default(),
                Some(config) => {
                    if let Ok(stream) = tokio_rustls::TlsAcceptor::from(config).accept(socket).await {
                        serve(stream, target, over).await.unwrap_or_default();
                    }
                }
            }
        };
        tokio::select! {
            () = talk => {}
            _ = changes.changed() => {}
        }
        self.standing.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn bind(address: SocketAddr) -> TcpListener {
    loop {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn serve(mut socket: impl AsyncRead + AsyncWrite + Unpin, target: u16, mode: Mode) -> io::Result<()> {
    match mode {
        Mode::Refuse | Mode::Reset => Ok(()),
        Mode::Silent => {
            while socket.read(&mut [0; 4096]).await? > 0 {}
            Ok(())
        }
        Mode::Say(text) => {
            let _ = socket.read(&mut [0; 4096]).await?;
            socket.write_all(text.as_bytes()).await?;
            socket.shutdown().await
        }
        Mode::Pass => {
            let mut server = TcpStream::connect(("127.0.0.1", target)).await?;
            tokio::io::copy_bidirectional(&mut socket, &mut server).await.map(|_| ())
        }
        Mode::Stall(most) | Mode::Cut(most) => {
            let mut server = TcpStream::connect(("127.0.0.1", target)).await?;
            let (mut passed, mut asked, mut answered) = (0, [0; 4096], [0; 4096]);
            loop {
                tokio::select! {
                    read = socket.read(&mut asked) => match read? {
                        0 => return Ok(()),
                        read => server.write_all(&asked[..read]).await?,
                    },
                    read = server.read(&mut answered), if passed < most => {
                        let read = read?.min(most - passed);
                        socket.write_all(&answered[..read]).await?;
                        passed += read;
                        if (passed >= most || read == 0) && matches!(mode, Mode::Cut(_)) {
                            return socket.shutdown().await;
                        }
                    }
                }
            }
        }
    }
}
