//! A plain proxy made of the same libraries and nothing else: what is left to us is what it does not use up.
//!
//! It reads requests with hyper, passes method, path, headers and body on over kept connections, driven by whoever asks, and
//! passes the answer back. It looks at nothing.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

/// A connection upstream, idle or in use.
struct Kept {
    sender: SendRequest<Full<Bytes>>,
    connection: Pin<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
}

/// Those that are idle.
type Pool = Rc<RefCell<Vec<Kept>>>;

/// Serves on one port what another says, until the process ends.
pub(crate) async fn serve(port: u16, upstream: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let pool = Pool::default();
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let pool = pool.clone();
                tokio::task::spawn_local(async move {
                    let service = service_fn(|request| pass(&pool, upstream, request));
                    let mut server = hyper::server::conn::http1::Builder::new();
                    let _ = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service).await;
                });
            }
        })
        .await;
}

async fn pass(pool: &Pool, upstream: u16, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut asked = Request::new(Full::new(body.collect().await.unwrap().to_bytes()));
    *asked.method_mut() = head.method;
    *asked.uri_mut() = head.uri;
    *asked.headers_mut() = head.headers;
    asked.headers_mut().remove(header::CONNECTION);
    let kept = pool.borrow_mut().pop();
    let mut kept = match kept {
        Some(kept) => kept,
        None => connect(upstream).await,
    };
    let mut answer = pin!(kept.sender.send_request(asked));
    let connection = &mut kept.connection;
    let answer = poll_fn(|context| driven(connection, context, |context| answer.as_mut().poll(context))).await.unwrap();
    let (head, mut body) = answer.into_parts();
    let mut whole = BytesMut::new();
    while let Some(frame) =
        poll_fn(|context| driven(connection, context, |context| Pin::new(&mut body).poll_frame(context))).await
    {
        if let Ok(data) = frame.unwrap().into_data() {
            whole.extend_from_slice(&data);
        }
    }
    // It is idle when it has seen the end of the answer.
    poll_fn(|context| driven(&mut kept.connection, context, |context| kept.sender.poll_ready(context))).await.unwrap();
    pool.borrow_mut().push(kept);
    let mut answer = Response::from_parts(head, Full::new(whole.freeze()));
    answer.headers_mut().remove(header::CONNECTION);
    Ok(answer)
}

async fn connect(upstream: u16) -> Kept {
    let socket = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (sender, connection) = handshake(TokioIo::new(socket)).await.unwrap();
    Kept { sender, connection: Box::pin(connection) }
}

/// Asks for something after the connection it comes over has done what it can.
fn driven<T>(
    connection: &mut Pin<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
    context: &mut Context<'_>,
    ask: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    if let Poll::Ready(Err(error)) = connection.as_mut().poll(context) {
        panic!("the upstream connection: {error}");
    }
    ask(context)
}
