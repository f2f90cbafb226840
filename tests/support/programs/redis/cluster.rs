//! A Redis Cluster of three nodes.

use redis::cluster::ClusterClient;

use super::{Redis, free_port, until};

const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Redis>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let mut nodes = Vec::new();
        let mut first = None;
        for (from, to) in SLOTS {
            // The default is the port plus 10,000, which may be no valid port.
            let bus = free_port().to_string();
            let args = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            let node = Redis::start_with(&args).await;
            node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", from, to])
                .await;
            let (port, bus) = first.get_or_insert_with(|| (node.port().to_string(), bus));
            if !nodes.is_empty() {
                let meet = ["CLUSTER", "MEET", "127.0.0.1", port, bus];
                node.ask::<()>(&meet).await;
            }
            nodes.push(node);
        }
        for node in &nodes {
            until("the cluster is complete", async || {
                let info: String = node.ask(&["CLUSTER", "INFO"]).await;
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            })
            .await;
        }
        Self { nodes }
    }

    /// A client with an ACL user's credentials.
    pub(crate) fn client(&self, name: &str, password: &str) -> ClusterClient {
        let address =
            |node: &Redis| format!("redis://{name}:{password}@127.0.0.1:{}/", node.port());
        ClusterClient::new(self.nodes.iter().map(address)).unwrap()
    }

    /// The number of keys of each node.
    pub(crate) async fn keys(&self) -> Vec<usize> {
        let mut keys = Vec::new();
        for node in &self.nodes {
            keys.push(node.keys().await.len());
        }
        keys
    }
}
