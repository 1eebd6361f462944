//! A worker without any command line comfort: `serve SCHEDULER [--threads N] [--python PATH | --no-python]`.

use dask_protocol::Address;
use dask_worker::{PythonChoice, Worker, WorkerOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut arguments = std::env::args().skip(1);
    let scheduler = arguments.next().ok_or("usage: serve SCHEDULER [--threads N] [--python PATH | --no-python]")?;
    let mut options = WorkerOptions::new(Address::normalize(&scheduler, Some(8786))?)?;
    options.nthreads = 2;
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--threads" => options.nthreads = value()?.parse()?,
            "--python" => options.python = PythonChoice::Path(value()?.into()),
            "--memory" => options.memory_limit = Some(value()?.parse()?),
            "--name" => options.name = value()?.into(),
            "--no-python" => options.python = PythonChoice::Off,
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    let worker = Worker::start(options).await?;
    tokio::select! {
        closed = worker.closed() => println!("closed: {closed:?}"),
        _ = tokio::signal::ctrl_c() => println!("closed: {:?}", worker.close("signal-2").await),
    }
    Ok(())
}
