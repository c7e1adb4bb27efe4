//! The line that breaks, tested on an echo.

use crate::support::proxy::{Break, Plan, Proxy};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A server that answers everything it is sent with `ok`, once, when the client has ended its half; and remembers it.
fn server() -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let remembered = heard.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, mut bytes) = (socket.unwrap(), Vec::new());
            socket.read_to_end(&mut bytes).ok();
            *remembered.lock().unwrap() = bytes;
            socket.write_all(b"0123456789").ok();
        }
    });
    (port, heard)
}

fn call(proxy: &Proxy, send: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(("127.0.0.1", proxy.port()))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.write_all(send)?;
    socket.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer)
}

#[test]
fn every_fault_is_what_it_says() {
    let (port, heard) = server();
    let mut proxy = Proxy::to(port);
    assert_eq!(call(&proxy, b"hello").unwrap(), b"0123456789");
    assert_eq!(*heard.lock().unwrap(), b"hello");

    proxy.next(Plan::down(Break::Fin, 4));
    assert_eq!(call(&proxy, b"hello").unwrap(), b"0123");
    proxy.next(Plan::down(Break::Rst, 4));
    assert_eq!(call(&proxy, b"hello").unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.next(Plan::down(Break::Flip, 3));
    assert_eq!(call(&proxy, b"hello").unwrap(), b"0122456789");
    proxy.next(Plan::up(Break::Flip, 0));
    assert_eq!(call(&proxy, b"hello").unwrap(), b"0123456789");
    assert_eq!(*heard.lock().unwrap(), b"iello");
    proxy.next(Plan::up(Break::Fin, 3));
    call(&proxy, b"hello").unwrap();
    crate::support::wait_until("half", Duration::from_secs(5), || *heard.lock().unwrap() == b"hel");
    proxy.next(Plan::down(Break::Stall, 4));
    assert_eq!(call(&proxy, b"hello").unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.next(Plan::silence());
    assert_eq!(call(&proxy, b"hello").unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.next(Plan::down(Break::Trickle { bytes: 1, pause: Duration::from_millis(10) }, 0));
    assert_eq!(call(&proxy, b"hello").unwrap(), b"0123456789");

    // Done, and nobody was told.
    *heard.lock().unwrap() = Vec::new();
    proxy.next(Plan::lose_answer().once_sent("PUT"));
    assert_eq!(call(&proxy, b"PUT it there").unwrap(), b"");
    assert_eq!(*heard.lock().unwrap(), b"PUT it there");
    proxy.next(Plan::lose_answer().once_sent("PUT"));
    assert_eq!(call(&proxy, b"GET it").unwrap(), b"0123456789");

    proxy.pause();
    assert_eq!(call(&proxy, b"hello").unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.resume();
    assert_eq!(call(&proxy, b"hello").unwrap(), b"0123456789");
    proxy.cut();
    assert_eq!(call(&proxy, b"hello").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    proxy.restore();
    assert_eq!(call(&proxy, b"hello").unwrap(), b"0123456789");
    assert_eq!(proxy.connections(), 14);
}
