//! Certificates that are too long for one packet.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The folder with `ca.crt`, `server.crt`, `server.key`, `client.crt` and `client.key`; made once.
///
/// # Panics
/// When openssl fails.
pub(crate) fn folder() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(make).clone()
}

fn make() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("faults-pki");
    // Those of last week would do; those of last month have ended.
    let script = format!(
        "set -e; dir={dir}
         openssl x509 -checkend 604800 -noout -in $dir/client.crt >/dev/null 2>&1 && [ -d $dir/private ] && exit 0
         new=$dir.$$; mkdir -p $new; cd $new
         openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -subj /CN=ca -days 30 -out ca.crt 2>/dev/null
         for who in server client; do
            openssl req -newkey rsa:4096 -nodes -keyout $who.key -subj /O=Example/CN=$who -out $who.csr 2>/dev/null
            printf 'extendedKeyUsage=%sAuth\\nkeyUsage=digitalSignature\\nsubjectAltName=DNS:%s,DNS:vpn.example.com' $who $who >$who.ext
            for n in 1 2 3 4 5 6 7 8 9; do printf ',DNS:office-number-%s.%s.of-a-large-company.example' $n $who >>$who.ext; done
            openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile $who.ext -out $who.crt 2>/dev/null
         done
         mkdir private; cp server.key client.key private
         rm -rf $dir; mv $new $dir",
        dir = folder.display()
    );
    let outcome = Command::new("sh").args(["-c", &script]).output().expect("there is a shell");
    assert!(outcome.status.success(), "certificates: {}", String::from_utf8_lossy(&outcome.stderr));
    folder
}
