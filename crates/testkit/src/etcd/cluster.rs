use super::Etcd;

/// A real etcd of three members on 127.0.0.1, of which two are a quorum.
#[derive(Debug)]
pub struct EtcdCluster {
    members: [Etcd; 3],
}

impl EtcdCluster {
    /// Starts one without data that lets everyone in. Its members start at the same time.
    ///
    /// # Panics
    ///
    /// As [`Etcd::start`].
    pub fn start() -> Self {
        let mut members = ["one", "two", "three"].map(|name| Etcd::member(name, &[]));
        let cluster = members.each_ref().map(Etcd::peer_url).join(",");
        for member in &mut members {
            member.cluster.clone_from(&cluster);
            member.launch();
        }
        for member in &members {
            member.wait_until_it_serves();
        }
        Self { members }
    }

    /// The addresses of its members, each `127.0.0.1:PORT`.
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(Etcd::address).collect()
    }

    /// Its members.
    pub fn members(&self) -> &[Etcd] {
        &self.members
    }

    /// One of its members, to kill or to restart.
    ///
    /// # Panics
    ///
    /// If there is none of this index.
    pub fn member_mut(&mut self, index: usize) -> &mut Etcd {
        &mut self.members[index]
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_member_is_killed_and_comes_back() {
        let mut cluster = EtcdCluster::start();
        let addresses = cluster.addresses();
        for address in &addresses {
            TcpStream::connect(address).expect("each member serves");
        }
        cluster.member_mut(1).kill();
        TcpStream::connect(&addresses[1]).expect_err("it is gone");
        cluster.member_mut(1).restart();
        TcpStream::connect(&addresses[1]).expect("it serves again");
    }
}
