"""The S3 server that all are measured against, over http and https, with and without a round trip."""

import datetime
import hashlib
import hmac
import http.client
import os
import sys
import urllib.parse
import xml.etree.ElementTree as xml

from machine import HERE, Failed, free_port, free_port_with_grpc, wait_for

BUCKET = "bench"
ACCESS_KEY = "walhalla-bench"
SECRET_KEY = "walhalla-bench-secret"
REGION = "us-east-1"


class Endpoint:
    """A way to the store."""

    def __init__(self, scheme, round_trip, port, ca):
        self.scheme, self.round_trip, self.port, self.ca = scheme, round_trip, port, ca
        self.name = f"{scheme}, {round_trip * 1000:.0f} ms"
        # By name over https: not every client finds an address in a certificate.
        self.host = f"{'localhost' if scheme == 'https' else '127.0.0.1'}:{port}"
        self.url = f"{scheme}://{self.host}"


class Store:
    """A running server with one empty bucket."""

    def __init__(self, machine, kind, program, round_trip):
        self.machine, self.kind = machine, kind
        self.home = machine.make("store")
        self.ports = {"http": free_port(), "https": free_port()}
        self.certify()
        {"seaweedfs": self.seaweedfs, "minio": self.minio}[kind](program)
        self.endpoints = [Endpoint(scheme, 0, port, self.ca) for scheme, port in self.ports.items()]
        for scheme, port in self.ports.items():
            line = free_port()
            machine.start(
                "delay",
                [sys.executable, "-IS", os.path.join(HERE, "delay.py"), str(line), str(port), str(round_trip)],
                user=False,
            )
            self.endpoints.append(Endpoint(scheme, round_trip, line, self.ca))
        for endpoint in self.endpoints:
            if endpoint.scheme == "http":
                wait_for(f"the line to {endpoint.url}", 30, lambda: self.answers(endpoint.port))

    def endpoint(self, scheme, slow):
        return next(e for e in self.endpoints if e.scheme == scheme and bool(e.round_trip) == slow)

    def certify(self):
        """An authority and a certificate of its own, for a day."""
        self.ca, key, request, certificate = (
            os.path.join(self.home, name) for name in ("ca.crt", "private.key", "request.pem", "public.crt")
        )
        ca_key, names = os.path.join(self.home, "ca.key"), os.path.join(self.home, "names")
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        run = self.machine.run
        run(
            [
                "openssl",
                "req",
                "-x509",
                *curve,
                "-keyout",
                ca_key,
                "-out",
                self.ca,
                "-days",
                "2",
                "-subj",
                "/CN=bench CA",
            ]
        )
        run(["openssl", "req", *curve, "-keyout", key, "-out", request, "-subj", "/CN=localhost"])
        with open(names, "w", encoding="ascii") as file:
            file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        os.chmod(names, 0o644)
        run(
            [
                "openssl",
                "x509",
                "-req",
                "-in",
                request,
                "-CA",
                self.ca,
                "-CAkey",
                ca_key,
                "-CAcreateserial",
                "-days",
                "1",
                "-extfile",
                names,
                "-out",
                certificate,
            ]
        )
        self.key, self.certificate = key, certificate

    def seaweedfs(self, program):
        data = self.machine.make("store", "data")
        master, filer, volume, admin = (free_port_with_grpc() for _ in range(4))
        argv = [
            program,
            "mini",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-admin.ui=false",
            "-webdav=false",
            "-master.telemetry=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            f"-s3.port={self.ports['http']}",
            f"-s3.port.https={self.ports['https']}",
            f"-s3.port.grpc={free_port()}",
            f"-s3.cert.file={self.certificate}",
            f"-s3.key.file={self.key}",
            f"-bucket={BUCKET}",
        ]
        for name, port in (("master", master), ("filer", filer), ("volume", volume), ("admin", admin)):
            argv += [f"-{name}.port={port}", f"-{name}.port.grpc={port + 10000}"]
        environment = self.machine.environment(AWS_ACCESS_KEY_ID=ACCESS_KEY, AWS_SECRET_ACCESS_KEY=SECRET_KEY)
        self.process = self.machine.start("store", argv, environment, data)
        wait_for("SeaweedFS has its bucket", 60, lambda: status(filer, f"/buckets/{BUCKET}/?limit=1") == 200)
        wait_for("SeaweedFS takes requests", 60, lambda: self.answers(self.ports["http"]))

    def minio(self, program):
        # Two doors to the same directory: MinIO has either http or https.
        data = self.machine.make("store", "data")
        self.machine.give(os.path.dirname(self.machine.make("store", "data", BUCKET)))
        environment = self.machine.environment(
            MINIO_ROOT_USER=ACCESS_KEY, MINIO_ROOT_PASSWORD=SECRET_KEY, MINIO_BROWSER="off", MINIO_UPDATE="off"
        )
        for scheme, port in self.ports.items():
            argv = [
                program,
                "server",
                data,
                "--address",
                f"127.0.0.1:{port}",
                "--quiet",
                "--certs-dir",
                self.home if scheme == "https" else self.machine.make("store", "no-certificates"),
            ]
            self.process = self.machine.start("store", argv, environment, data)
        wait_for("MinIO takes requests", 60, lambda: self.answers(self.ports["http"]))

    def answers(self, port):
        try:
            return self.request(port, f"/{BUCKET}", {"list-type": "2", "max-keys": "1"})[0] == 200
        except OSError:
            return False

    def request(self, port, path, query):
        """A signed GET."""
        now = datetime.datetime.now(datetime.timezone.utc)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        quote = lambda text: urllib.parse.quote(text, safe="-_.~")
        query = "&".join(f"{quote(name)}={quote(query[name])}" for name in sorted(query))
        host, empty = f"127.0.0.1:{port}", hashlib.sha256().hexdigest()
        named = "host;x-amz-content-sha256;x-amz-date"
        canonical = (
            f"GET\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{stamp}\n\n{named}\n{empty}"
        )
        scope = f"{day}/{REGION}/s3/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{SECRET_KEY}".encode()
        for part in (day, REGION, "s3", "aws4_request", to_sign):
            key = hmac.digest(key, part.encode(), "sha256")
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={named}, Signature={key.hex()}"
        )
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"x-amz-date": stamp, "x-amz-content-sha256": empty, "authorization": authorization}
        connection.request("GET", f"{path}?{query}", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    def sizes(self, prefix):
        """Every key below a prefix, with its size."""
        sizes, query = {}, {"list-type": "2", "prefix": prefix}
        while True:
            code, body = self.request(self.ports["http"], f"/{BUCKET}", query)
            if code != 200:
                raise Failed(f"the store lists {prefix} with {code}")
            page = xml.fromstring(body)
            of = lambda node, name: next((n.text for n in node.iter() if n.tag.endswith("}" + name)), None)
            for entry in page.iter():
                if entry.tag.endswith("}Contents"):
                    sizes[of(entry, "Key")] = int(of(entry, "Size"))
            following = of(page, "NextContinuationToken")
            if not following:
                return sizes
            query["continuation-token"] = following


def status(port, path):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
