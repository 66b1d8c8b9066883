"""The guide to notifications with apprise: its files and commands, with servers for the services.

A proxy answers the requests to Slack, Teams and ntfy, whose hosts cannot be changed, and a server
accepts the mail. Both search the arguments of all processes for secrets while apprise waits for
their answer.
"""

import json
import re
import socketserver
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.cluster.processes import HANG_SECONDS
from support.quiet_server import InThread, QuietHandler, QuietServer
from support.recipes import tiny_values, write_yaml
from typer.testing import CliRunner

from cluster.notify import delivery
from transloom.cli.app import app

GUIDE = Path(__file__).parents[2] / "docs/how-to/notifications.md"
HOSTS = ("hooks.slack.com", "prod-01.westeurope.logic.azure.com", "ntfy.sh")
# The guide's placeholder for each secret.
SECRETS = {
    "XXXXXXXXXXXXXXXXXXXXXXXX": "CanarySlackCanarySlack00",
    "SIGNATURE": "CanarySignature",
    "PASSWORD": "CanaryPassword",
    "TOPIC": "CanaryTopic",
}
SERVICES = ("slack", "teams", "mail", "ntfy")


def block(kind, containing):
    (found,) = (
        text
        for text in re.findall(rf"```{kind}[^\n]*\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        if containing in text
    )
    return found


class Arguments:
    """Arguments of all processes of this host, read at each request to a server."""

    def __init__(self):
        self.seen = []

    def look(self):
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue  # the process has ended
        self.seen.append(found)


class TunnelServer(QuietServer):
    """Proxy that answers in place of every host."""

    def __init__(self, certificate, arguments):
        super().__init__(_Tunnel)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate)
        self.arguments = arguments
        self.bodies = {}


class _Tunnel(QuietHandler):
    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        with (
            self.server.tls.wrap_socket(self.connection, server_side=True) as connection,
            connection.makefile("rb") as self.rfile,
            connection.makefile("wb", buffering=0) as self.wfile,
        ):
            self.handle_one_request()

    def do_POST(self):
        body = self.body()
        self.server.arguments.look()
        self.server.bodies[self.headers["Host"].partition(":")[0]] = json.loads(body)
        self.send(200, b"ok" if "slack" in self.headers["Host"] else b"{}")
        self.close_connection = True


class MailServer(InThread, socketserver.ThreadingTCPServer):
    """Server that accepts every mail, after a login."""

    def __init__(self, arguments):
        super().__init__(("127.0.0.1", 0), _Mail)
        self.arguments = arguments
        self.mails = []


class _Mail(socketserver.StreamRequestHandler):
    def handle(self):
        self.reply("220 ready")
        while line := self.rfile.readline():
            match line.split()[0].upper():
                case b"EHLO":
                    self.reply("250-host", "250 AUTH PLAIN")
                case b"AUTH":
                    self.reply("235 welcome")
                case b"DATA":
                    self.reply("354 begin")
                    lines = list(iter(self.rfile.readline, b".\r\n"))
                    self.server.arguments.look()
                    self.server.mails.append(b"".join(lines).decode())
                    self.reply("250 taken")
                case b"QUIT":
                    self.reply("221 bye")
                    return
                case _:
                    self.reply("250 fine")

    def reply(self, *lines):
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


def write_certificate(path):
    """Write a key with a self-signed certificate for the hosts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(pem, *private) + certificate.public_bytes(pem))


@pytest.fixture
def guided(tmp_path, monkeypatch):
    """Follow the guide in a separate home; yield the recipe, both servers and the arguments."""
    monkeypatch.setattr(delivery, "ATTEMPT_SECONDS", HANG_SECONDS)  # apprise starts slowly here
    write_certificate(tmp_path / "certificate.pem")
    arguments = Arguments()
    tunnel = TunnelServer(tmp_path / "certificate.pem", arguments)
    mail = MailServer(arguments)
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HTTPS_PROXY": f"http://127.0.0.1:{tunnel.server_port}",
        "REQUESTS_CA_BUNDLE": str(tmp_path / "certificate.pem"),
        "no_proxy": "",
        "NO_PROXY": "",
    }
    addresses = block("ini", "slack=")
    for placeholder, secret in SECRETS.items():
        assert placeholder in addresses
        addresses = addresses.replace(placeholder, secret)
    at = f"127.0.0.1:{mail.server_address[1]}"
    addresses = addresses.replace("mailtos://", "mailto://").replace("smtp.example.com", at)
    (create,) = re.findall("^install .*$", GUIDE.read_text(), re.MULTILINE)
    variables = block("sh", "command -v apprise").partition("transloom notify")[0]
    commands = f"{create}\n{variables}" + '\nexec "$0" -c "import json, os; print(json.dumps('
    commands += 'dict(os.environ)))"'
    shell = subprocess.run(
        ["/bin/sh", "-ec", commands, sys.executable],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    for name, value in (environment | json.loads(shell.stdout)).items():
        monkeypatch.setenv(name, value)
    with (tmp_path / "notify.conf").open("r+") as file:
        file.write(addresses)
    values = tiny_values(tmp_path / "dataset")
    values["tracking"] |= yaml.safe_load(block("yaml", "TRANSLOOM_SLACK"))["tracking"]
    recipe = write_yaml(tmp_path / "my.yaml", values)
    with tunnel, mail:
        yield recipe, tunnel, mail, arguments


def test_four_services_get_the_message_and_no_process_argument_has_a_secret(guided, tmp_path):
    recipe, tunnel, mail, arguments = guided
    run = "<!channel> & <https://evil.invalid|run>"
    result = CliRunner().invoke(app, ["notify", str(recipe), "--run", f"runs/{run}"])
    assert result.exit_code == 0, result.output
    assert result.output.count("delivered in") == len(SERVICES)
    assert (tmp_path / "notify.conf").stat().st_mode & 0o777 == 0o600
    slack, teams, ntfy = (json.dumps(tunnel.bodies[host]) for host in HOSTS)
    (letter,) = mail.mails
    for received in (slack, teams, ntfy, letter):
        assert "Test message for run" in received
    assert "<" not in slack  # neither a mention nor a link
    assert SECRETS["TOPIC"] in ntfy
    for service, shown in zip(SERVICES, arguments.seen, strict=True):
        command = f"--config {tmp_path}/notify.conf --tag {service}"
        assert [line for line in shown if command in line]  # apprise was running
        text = "\n".join(shown)
        assert [secret for secret in SECRETS.values() if secret in text] == []
