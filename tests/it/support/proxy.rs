//! A line that breaks: a TCP proxy that does to chosen connections, at a chosen byte, what networks do.
//!
//! ```ignore
//! let proxy = Proxy::to(s3.port());
//! proxy.next(Plan::lose_answer().once_sent("PUT /bucket/wal/"));   // committed, and nobody was told
//! proxy.always(Plan::down(Break::Stall, 100));
//! ```

use super::free_port;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What happens at the chosen byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// The connection is closed properly, both ways.
    Fin,
    /// The connection is reset, both ways.
    Rst,
    /// Nothing moves any more in this direction, for ever; the connection stays open.
    Stall,
    /// From here on only so many bytes at a time, with a pause in between.
    Trickle { bytes: usize, pause: Duration },
    /// The lowest bit of this byte is turned over; all else passes.
    Flip,
}

/// What befalls one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// Towards the server: what, and after how many bytes.
    up: Option<(Break, u64)>,
    /// Towards the client.
    down: Option<(Break, u64)>,
    /// Nothing happens, and no byte is counted, before the client has sent this text.
    armed_by: Option<Vec<u8>>,
    /// Accepted, and never answered.
    silent: bool,
    /// Accepted, and closed once something was said.
    hang_up: bool,
    /// Every request is answered with this, and none passes.
    page: Option<&'static str>,
}

impl Plan {
    /// Everything passes.
    pub(crate) fn pass() -> Self {
        Self::default()
    }

    /// Towards the server, after so many bytes.
    pub(crate) fn up(what: Break, after: u64) -> Self {
        Plan { up: Some((what, after)), ..Self::default() }
    }

    /// Towards the client, after so many bytes.
    pub(crate) fn down(what: Break, after: u64) -> Self {
        Plan { down: Some((what, after)), ..Self::default() }
    }

    /// The whole request passes; when the server answers, nothing of it does, and the connection is closed: whatever was asked is done,
    /// and the client does not know.
    pub(crate) fn lose_answer() -> Self {
        Self::down(Break::Fin, 0)
    }

    /// Accepted, and never answered.
    pub(crate) fn silence() -> Self {
        Plan { silent: true, ..Self::default() }
    }

    /// Accepted, and closed once the client has said something.
    pub(crate) fn hang_up() -> Self {
        Plan { hang_up: true, ..Self::default() }
    }

    /// A captive portal: whatever is asked for, a web page is the answer.
    pub(crate) fn portal() -> Self {
        let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 43\r\nConnection: close\r\n\r\n\
                    <html><body>Our terms, please</body></html>";
        Plan { page: Some(page), ..Self::default() }
    }

    /// Strikes only once the client has sent this text (of a connection without TLS), and counts bytes from the read that ended it.
    pub(crate) fn once_sent(mut self, text: &str) -> Self {
        self.armed_by = Some(text.as_bytes().to_vec());
        self
    }

    /// A fault by lot, within the first `reach` bytes, half of them where heads of requests and answers are. Print the seed.
    pub(crate) fn random(random: &mut fastrand::Rng, reach: u64) -> Self {
        let reach = if random.bool() { reach.min(600) } else { reach };
        let whats =
            [Break::Fin, Break::Rst, Break::Flip, Break::Trickle { bytes: 1000, pause: Duration::from_millis(5) }];
        let (what, after) = (*random.choice(&whats).unwrap_or(&Break::Fin), random.u64(0..reach));
        if random.bool() { Self::up(what, after) } else { Self::down(what, after) }
    }
}

#[derive(Debug, Default)]
struct Script {
    next: VecDeque<Plan>,
    always: Plan,
    connections: usize,
}

/// The running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    target: u16,
    script: Arc<Mutex<Script>>,
    paused: Arc<watch::Sender<bool>>,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// A proxy to a port of 127.0.0.1 that lets everything pass.
    pub(crate) fn to(target: u16) -> Self {
        let mut proxy = Proxy {
            port: free_port(),
            target,
            script: Arc::default(),
            paused: Arc::new(watch::Sender::new(false)),
            runtime: None,
        };
        proxy.restore();
        proxy
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:port`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The plan of the next connection that has none yet.
    pub(crate) fn next(&self, plan: Plan) {
        self.script.lock().unwrap().next.push_back(plan);
    }

    /// Connections that have no plan yet get none from `next`.
    pub(crate) fn forget_plans(&self) {
        self.script.lock().unwrap().next.clear();
    }

    /// The plan of every connection that has none of its own.
    pub(crate) fn always(&self, plan: Plan) {
        self.script.lock().unwrap().always = plan;
    }

    /// Connections taken so far.
    pub(crate) fn connections(&self) -> usize {
        self.script.lock().unwrap().connections
    }

    /// Nothing moves on any connection until `resume`.
    pub(crate) fn pause(&self) {
        self.paused.send_replace(true);
    }

    /// Everything moves again.
    pub(crate) fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// The line is dead: connections end, new ones are refused.
    pub(crate) fn cut(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// The line is there (again).
    pub(crate) fn restore(&mut self) {
        assert!(self.runtime.is_none(), "the line is there");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (script, target, paused) = (self.script.clone(), self.target, self.paused.clone());
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let plan = {
                    let mut script = script.lock().unwrap();
                    script.connections += 1;
                    script.next.pop_front().unwrap_or_else(|| script.always.clone())
                };
                tokio::spawn(connection(client, target, plan, paused.subscribe()));
            }
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How a direction ended.
enum End {
    Closed,
    Broken(Break),
}

async fn connection(client: TcpStream, target: u16, plan: Plan, paused: watch::Receiver<bool>) {
    if plan.silent {
        let _held = client;
        std::future::pending::<()>().await;
        return;
    }
    if plan.hang_up || plan.page.is_some() {
        return refuse(client, plan.page).await;
    }
    // Where the server is not there the client sees a connection that closes at once.
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let armed = watch::Sender::new(plan.armed_by.is_none());
    let mut up = Direction { from: from_client, to: to_server, what: plan.up, paused: paused.clone(), moved: 0 };
    let mut down = Direction { from: from_server, to: to_client, what: plan.down, paused, moved: 0 };

    let broken = {
        let (up, down) = (up.run(&armed, plan.armed_by.as_deref()), down.run(&armed, None));
        tokio::pin!(up, down);
        tokio::select! {
            end = &mut up => match end { End::Broken(what) => Some(what), End::Closed => broken(down.await) },
            end = &mut down => match end { End::Broken(what) => Some(what), End::Closed => broken(up.await) },
        }
    };
    match broken {
        Some(Break::Rst) => {
            // A whole socket with a linger of zero is reset when dropped; a half would be closed properly first.
            for socket in [up.from.reunite(down.to), down.from.reunite(up.to)] {
                socket.unwrap().set_zero_linger().ok();
            }
        }
        Some(_) => {
            up.to.shutdown().await.ok();
            down.to.shutdown().await.ok();
            // Closed with unread bytes a socket would be reset; so they are read, as long as the other side sends any.
            let mut rest = vec![0; 65536];
            let drain = async { while up.from.read(&mut rest).await.is_ok_and(|n| n > 0) {} };
            tokio::time::timeout(Duration::from_secs(5), drain).await.ok();
        }
        None => {}
    }
}

/// Answers for the server, or closes without an answer.
async fn refuse(mut client: TcpStream, page: Option<&str>) {
    let mut buffer = vec![0; 65536];
    // However much of the request has come: it is not answered.
    client.read(&mut buffer).await.map(drop).ok();
    if let Some(page) = page {
        client.write_all(page.as_bytes()).await.ok();
    }
    client.shutdown().await.ok();
    let drain = async { while client.read(&mut buffer).await.is_ok_and(|n| n > 0) {} };
    tokio::time::timeout(Duration::from_secs(5), drain).await.ok();
}

fn broken(end: End) -> Option<Break> {
    match end {
        End::Broken(what) => Some(what),
        End::Closed => None,
    }
}

/// One direction of a connection.
struct Direction {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    what: Option<(Break, u64)>,
    paused: watch::Receiver<bool>,
    /// Bytes since the plan was armed.
    moved: u64,
}

impl Direction {
    /// Moves bytes until either side closes or the plan strikes. `needle`: what arms the plan, looked for in what is moved here.
    async fn run(&mut self, armed: &watch::Sender<bool>, needle: Option<&[u8]>) -> End {
        let (mut buffer, mut tail) = (vec![0; 16384], Vec::new());
        loop {
            let read = self.from.read(&mut buffer).await.unwrap_or(0);
            if self.paused.wait_for(|paused| !paused).await.is_err() || read == 0 {
                self.to.shutdown().await.ok();
                return End::Closed;
            }
            let bytes = &mut buffer[..read];
            if let Some(needle) = needle.filter(|_| !*armed.borrow()) {
                tail.extend_from_slice(bytes);
                if tail.windows(needle.len()).any(|window| window == needle) {
                    armed.send_replace(true);
                }
                tail.drain(..tail.len().saturating_sub(needle.len()));
            }
            if !*armed.borrow() {
                if self.to.write_all(bytes).await.is_err() {
                    return End::Closed;
                }
                continue;
            }
            let from = self.moved;
            self.moved += read as u64;
            let strikes = self.what.filter(|(_, after)| self.moved > *after);
            let sent = match strikes {
                None => self.to.write_all(bytes).await,
                Some((Break::Flip, after)) => {
                    if after >= from {
                        bytes[(after - from) as usize] ^= 1;
                    }
                    self.to.write_all(bytes).await
                }
                Some((Break::Trickle { bytes: few, pause }, after)) => {
                    let (whole, slow) = bytes.split_at(after.saturating_sub(from) as usize);
                    self.trickle(whole, slow, few, pause).await
                }
                Some((what @ (Break::Fin | Break::Rst | Break::Stall), after)) => {
                    let passes = &bytes[..after.saturating_sub(from) as usize];
                    self.to.write_all(passes).await.ok();
                    if what == Break::Stall {
                        std::future::pending::<()>().await;
                    }
                    return End::Broken(what);
                }
            };
            if sent.is_err() {
                return End::Closed;
            }
        }
    }

    async fn trickle(&mut self, whole: &[u8], slow: &[u8], few: usize, pause: Duration) -> std::io::Result<()> {
        self.to.write_all(whole).await?;
        for chunk in slow.chunks(few.max(1)) {
            self.to.write_all(chunk).await?;
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}
