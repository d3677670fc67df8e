//! Answers scrapers and health checks.

use crate::figures::{Source, render};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long a client may take for the head of its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections at a time.
const CONNECTIONS: usize = 64;

/// When there is no descriptor for a connection.
const REST: Duration = Duration::from_millis(100);

/// What OpenMetrics text is called.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where metrics and health checks are asked for.
#[derive(Debug)]
pub struct Endpoint {
    listener: std::net::TcpListener,
    addr: SocketAddr,
}

impl Endpoint {
    /// Listens on `addr`. Nobody is answered yet.
    ///
    /// # Errors
    /// Those of the system, for instance when the address is not free.
    pub fn bind(addr: SocketAddr) -> io::Result<Endpoint> {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        Ok(Endpoint { listener, addr })
    }

    /// Where it listens, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers for `source`, in a thread of its own that has the signal mask of the caller.
    ///
    /// # Errors
    /// Those of the system, when there is no thread or no descriptor.
    pub fn serve<S: Source>(self, source: S) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let source = Arc::new(source);
        thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || runtime.block_on(serve(self.listener, source)))?;
        Ok(())
    }
}

async fn serve<S: Source>(listener: std::net::TcpListener, source: Arc<S>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(REST).await;
            continue;
        };
        let source = source.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let answer = answer(&request, &source);
                async move { Ok::<_, Infallible>(answer) }
            });
            // Who goes away in the middle is not told of anything.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            drop(place);
        });
    }
}

fn answer<S: Source>(request: &Request<Incoming>, source: &Arc<S>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, allowed);
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => match render(source) {
            Ok(metrics) => with_type(StatusCode::OK, OPENMETRICS, metrics),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "no metrics\n"),
        },
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match source.readiness() {
            Ok(()) => text(StatusCode::OK, "ready\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz or /readyz\n"),
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", text.to_owned())
}

fn with_type(status: StatusCode, of_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let of_type = hyper::header::HeaderValue::from_static(of_type);
    response.headers_mut().insert(CONTENT_TYPE, of_type);
    response
}
