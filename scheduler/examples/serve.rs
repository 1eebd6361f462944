//! A scheduler alone in a process: `serve [ADDRESS] [DASHBOARD]`, by default `tcp://127.0.0.1:8786` and none.

use dask_protocol::Address;
use dask_scheduler::{Scheduler, SchedulerOptions};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let listen = args.next().unwrap_or_else(|| "tcp://127.0.0.1:8786".to_owned());
    let options = SchedulerOptions {
        listen: vec![Address::new(listen)],
        dashboard_address: args.next(),
        python: std::env::var_os("DASK_PYTHON").map(Into::into),
        ..SchedulerOptions::default()
    };
    let scheduler = Scheduler::start(options).await?;
    tokio::select! {
        reason = scheduler.closed() => println!("closed: {reason}"),
        _ = tokio::signal::ctrl_c() => scheduler.close("signal-2").await,
    }
    Ok(())
}
