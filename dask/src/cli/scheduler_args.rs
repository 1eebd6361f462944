//! The options of `dask-scheduler`.

use std::time::Duration;

use clap::Parser;
use dask_protocol::Address;

use super::address::{SCHEDULER_PORT, Where, scheduler_address};
use super::scheduler_config::ConfigArgs;
use super::tls::TlsArgs;
use crate::config::DaskConfig;

/// Launch a Dask scheduler.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "dask-scheduler", disable_version_flag = true)]
pub struct SchedulerArgs {
    /// URI, IP or hostname of this server
    #[arg(long)]
    pub host: Option<String>,
    /// Serving port [default: 8786]; a comma list together with as many protocols
    #[arg(long)]
    pub port: Option<String>,
    /// Preferred network interface like 'eth0' or 'ib0'
    #[arg(long)]
    pub interface: Option<String>,
    /// Protocol: tcp, tls, ws or wss; a comma list together with as many ports
    #[arg(long)]
    pub protocol: Option<String>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Directory for certificates that are made when there are none; clients and workers use them by DASK_CONFIG=DIRECTORY/dask.yaml
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["tls_ca_file", "tls_cert", "tls_key"])]
    pub auto_tls: Option<String>,
    /// Address on which to serve the dashboard
    #[arg(long, default_value = ":8787", alias = "bokeh-port", alias = "http-port")]
    pub dashboard_address: String,
    /// Launch the dashboard (the default)
    #[arg(long, overrides_with = "no_dashboard", alias = "bokeh")]
    pub dashboard: bool,
    /// Do not launch the dashboard; /health, /metrics and JSON stay, as upstream
    #[arg(long, overrides_with = "dashboard", alias = "no-bokeh")]
    pub no_dashboard: bool,
    /// Path under which a proxy passes requests on to the dashboard
    #[arg(long, value_name = "PATH")]
    pub dashboard_prefix: Option<String>,
    /// File to write the process PID
    #[arg(long, default_value = "", hide_default_value = true)]
    pub pid_file: String,
    /// File to write connection information, to be shared with workers and clients
    #[arg(long, default_value = "", hide_default_value = true)]
    pub scheduler_file: String,
    /// File to record what is computed, for dask-sim to run again
    #[arg(long, value_name = "FILE")]
    pub event_log: Option<std::path::PathBuf>,
    /// Time of inactivity after which to close the scheduler, such as "5 minutes"
    #[arg(long)]
    pub idle_timeout: Option<String>,
    /// The Python that turns Python collections into graphs; default: DASK_PYTHON, the active virtual environment, or
    /// python3
    #[arg(long, value_name = "PATH")]
    pub python: Option<String>,
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Log level of dask: debug, info, warning, error
    #[arg(long)]
    pub log_level: Option<String>,
    /// Show the version and exit.
    #[arg(long)]
    pub version: bool,

    /// Starts a Jupyter server beside the scheduler, below /jupyter/ of its pages; whoever reaches them runs code here
    #[arg(long, overrides_with = "no_jupyter")]
    pub jupyter: bool,
    /// The default.
    #[arg(long, hide = true, overrides_with = "jupyter")]
    pub no_jupyter: bool,
    /// Module, file or URL with a dask_setup function, which Python beside the scheduler loads when it starts
    #[arg(long)]
    pub preload: Vec<String>,
    /// Arguments for the preload modules, after --
    #[arg(last = true)]
    pub preload_argv: Vec<String>,
    /// Deprecated upstream.
    #[arg(long, hide = true)]
    pub show: bool,
    /// Deprecated upstream.
    #[arg(long, hide = true)]
    pub no_show: bool,
    /// Deprecated upstream.
    #[arg(long, hide = true)]
    pub use_xheaders: Option<String>,
    /// Removed upstream.
    #[arg(long, hide = true)]
    pub bokeh_whitelist: Vec<String>,
}

/// What the options ask for, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerPlan {
    /// Where to listen.
    pub listen: Vec<Address>,
    /// The address to tell others, where it is not the first one listened on.
    pub contact_address: Option<Address>,
    /// When to close for lack of work.
    pub idle_timeout: Option<Duration>,
    /// To be logged.
    pub warnings: Vec<String>,
}

impl SchedulerArgs {
    /// Reads the options that need reading.
    ///
    /// # Errors
    /// What to tell the user.
    pub fn plan(&self, dask: &DaskConfig) -> Result<SchedulerPlan, String> {
        let idle_timeout = dask
            .said("--idle-timeout", self.idle_timeout.as_deref(), "distributed.scheduler.idle-timeout")
            .filter(|said| !said.is_off());
        let scheme = self.tls.default_scheme(dask)?;
        let contact = dask.key("distributed.scheduler.contact-address");
        let mut warnings = self.without_effect();
        for class in ConfigArgs::foreign_memory_policies(dask) {
            warnings.push(format!("the active memory manager's policy {class} is Python's and is not run"));
        }
        Ok(SchedulerPlan {
            listen: self.listen_addresses(scheme)?,
            contact_address: contact.map(|said| said.read(|text| scheduler_address(text, scheme))).transpose()?,
            idle_timeout: idle_timeout.map(|said| said.duration()).transpose()?,
            warnings,
        })
    }

    fn listen_addresses(&self, scheme: &str) -> Result<Vec<Address>, String> {
        let list = |text: &Option<String>| -> Vec<String> {
            text.as_deref().map(|text| text.split(',').map(|part| part.trim().to_owned()).collect()).unwrap_or_default()
        };
        let (ports, protocols, interfaces) = (list(&self.port), list(&self.protocol), list(&self.interface));
        if ports.len().max(protocols.len()) > 1 && !ports.is_empty() && ports.len() != protocols.len() {
            return Err("--protocol and --port must both be lists of equal length".to_owned());
        }
        let count = protocols.len().max(interfaces.len()).max(1);
        let port = |i: usize| match ports.get(i).or(ports.first()).map(String::as_str) {
            Some(text) => text.parse().map(Some).map_err(|_| format!("--port: {text:?} is not a port below 65536")),
            // Only the first of several protocols gets the usual port.
            None => Ok((i > 0).then_some(0)),
        };
        let address = |i: usize| {
            let at = Where {
                host: self.host.as_deref(),
                port: port(i)?,
                interface: interfaces.get(i).or(interfaces.first()).map(String::as_str),
                protocol: protocols.get(i).or(protocols.first()).map(String::as_str),
            };
            at.listen_address(scheme, SCHEDULER_PORT)
        };
        (0..count).map(address).collect()
    }

    fn without_effect(&self) -> Vec<String> {
        let ignored = [
            (self.show || self.no_show, "--show"),
            (self.use_xheaders.is_some(), "--use-xheaders"),
            (!self.bokeh_whitelist.is_empty(), "--bokeh-whitelist"),
        ];
        let given = ignored.iter().filter(|(given, _)| *given);
        given.map(|(_, option)| format!("{option} has no effect")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &[&str]) -> Result<SchedulerPlan, String> {
        SchedulerArgs::try_parse_from([&["dask-scheduler"], line].concat())
            .expect("known options")
            .plan(&DaskConfig::default())
    }

    fn listen(line: &[&str]) -> Vec<String> {
        plan(line).expect("valid").listen.iter().map(|address| address.as_str().to_owned()).collect()
    }

    #[test]
    fn the_usual_port_on_every_interface() {
        assert_eq!(listen(&[]), ["tcp://:8786"]);
        assert_eq!(listen(&["--port=8786", "--dashboard-address=:8787"]), ["tcp://:8786"]);
        assert_eq!(listen(&["--host", "0.0.0.0", "--port", "0"]), ["tcp://0.0.0.0:0"]);
        assert_eq!(listen(&["--protocol", "tls", "--host", "", "--port", "8786"]), ["tls://:8786"]);
        assert_eq!(listen(&["--tls-ca-file=a", "--tls-cert=b"]), ["tls://:8786"]);
        assert_eq!(listen(&["--interface", "lo"]), ["tcp://127.0.0.1:8786"]);
    }

    #[test]
    fn lists_of_protocols_and_ports_go_together() {
        assert_eq!(listen(&["--protocol=tcp,tls", "--port=1,2"]), ["tcp://:1", "tls://:2"]);
        assert_eq!(listen(&["--protocol=tcp,tls"]), ["tcp://:8786", "tls://:0"]);
        assert_eq!(listen(&["--protocol=tcp,ws://", "--port=1,2"]), ["tcp://:1", "ws://:2"]);
        for line in [&["--protocol=tcp", "--port=1,2"], &["--protocol=tcp,tls", "--port=1"]] {
            assert!(plan(line).expect_err("lengths differ").contains("equal length"));
        }
        assert!(plan(&["--port=1,2"]).is_err());
        assert!(plan(&["--port=web"]).is_err());
    }

    #[test]
    fn idle_timeout_has_units() {
        let idle = |text| plan(&["--idle-timeout", text]).map(|plan| plan.idle_timeout);
        assert_eq!(idle("5 minutes"), Ok(Some(Duration::from_secs(300))));
        assert_eq!(idle("90"), Ok(Some(Duration::from_secs(90))));
        assert!(idle("soon").is_err());
    }

    #[test]
    fn what_has_no_effect_is_warned_about() {
        assert!(plan(&["--preload", "foo", "--", "--option", "1"]).is_ok());
        assert_eq!(plan(&["--jupyter", "--no-jupyter"]).expect("harmless").warnings, [""; 0]);
        let old = plan(&["--bokeh-whitelist=*", "--no-show"]).expect("harmless");
        assert_eq!(old.warnings, ["--show has no effect", "--bokeh-whitelist has no effect"]);
    }
}
