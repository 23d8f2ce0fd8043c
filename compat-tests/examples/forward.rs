//! Forwards a local port with the library alone, without the `session-manager-plugin` program.
//!
//! ```text
//! cargo run -p ssm-sim &                      # or AWS itself, without the endpoint below
//! AWS_ENDPOINT_URL=http://127.0.0.1:PORT cargo run --example forward -- i-0123456789abcdef0 80 8080
//! ```

use session_manager_plugin::Forward;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [target, port, local] = words.as_slice() else {
        return Err("forward <target> <port> <local port>".into());
    };
    let forward = Forward::builder(target).from_env().to("localhost", port.parse()?);
    let forward = forward.listen(format!("127.0.0.1:{local}")).restart(true).start().await?;
    println!("{} goes to port {port} of {target}", forward.local_addr().ok_or("no address")?);
    tokio::signal::ctrl_c().await?;
    forward.shutdown().await;
    Ok(())
}
