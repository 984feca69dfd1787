"""The dataset stage: simulate telemetry or take a file, and validate it against the contract."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwcp_ml.contract.errors import DataRefused, DwcpError, ErrorCode, UsageError, did_you_mean
from dwcp_ml.contract.records import DataReport
from dwcp_ml.data.output import INCIDENTS_NAME, TELEMETRY_NAME
from dwcp_ml.files import atomic_directory, sha256_of, write_text
from dwcp_ml.storage.addresses import without_digest, without_query
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event

if TYPE_CHECKING:
    from dwcp_ml.contract.data_window import DataWindow
    from dwcp_ml.data.versioning import FileVersion
    from dwcp_ml.simulate import SimulatorSettings
    from dwcp_ml.storage.partitions import Partition, SkippedFiles

REPORT_NAME = "validation.json"
CEILINGS_NAME = "ceilings.json"
ORACLES_NAME = "oracles.parquet"


def make_dataset(options: RunOptions, output: Path, report: Reporter = ignore_event) -> DataReport:
    """Write a validated dataset to the directory ``output``.

    Without ``options.data_path`` the telemetry is simulated first, and the simulator's ceilings and
    the predictions of its oracles are stored with it. A path may end with ``#md5=`` and 32
    hexadecimal digits: a file with other content is then rejected.

    Raises
    ------
    DataRefused
        If the telemetry or the incidents break the contract, or their digest is not that of the
        path; ``output`` is then not written.
    """
    if options.data_path:
        return _validate(options, options.data_path, options.incidents_path, output, report)
    with atomic_directory(output) as staging:
        simulated = staging / "simulated"
        with ProgressTask("simulate", report) as task:
            from dwcp_ml.simulate import simulate

            settings = simulator_settings(options.seed, options.simulator)
            result = simulate(settings, simulated, progress=task.advance)
            task.finish(f"{result.rows:,} rows, seed {settings.seed}")
        telemetry, incidents = simulated / "telemetry.csv", simulated / "incidents.json"
        validated = _validate(options, str(telemetry), str(incidents), staging, report)
        # The files are in a staging directory: the report must name their final path.
        home = output / simulated.name
        data_report = validated.replace(
            source="simulated",
            path=str(home / telemetry.name),
            incidents_path=str(home / incidents.name),
        )
        write_text(staging / REPORT_NAME, data_report.to_json())
        for name in (CEILINGS_NAME, ORACLES_NAME):
            shutil.copyfile(simulated / name, staging / name)
        return data_report


def validate_at(
    data_path: str, incidents_path: str = "", *, output: Path | None = None, **options: Any
) -> DataReport:
    """Validate telemetry and incidents at addresses of any form; see ``data.validation.validate``.

    The telemetry may be a data set of several Parquet files, see ``storage.partitions``. An address
    may end with ``#md5=`` and 32 hexadecimal digits. A remote file is copied first, and the report
    names its address.

    Raises
    ------
    InvalidTelemetry
        If the data break the contract.
    DataRefused
        If a file has another digest, is missing, or can't be read.
    """
    from dwcp_ml.data.partition_validation import validate_partitions
    from dwcp_ml.data.validation import validate
    from dwcp_ml.storage.fetch import fetched
    from dwcp_ml.storage.partitions import partitions_of
    from dwcp_ml.storage.remote_objects import StorageError

    expected = dict(without_digest(each) for each in (data_path, incidents_path) if each)
    telemetry, incidents = without_digest(data_path)[0], without_digest(incidents_path)[0]
    try:
        parts = partitions_of(telemetry)
        md5 = None if parts is None else expected.pop(telemetry)
        with fetched(*expected) as files:
            check_digests(expected, files)
            options["incidents_path"] = files[incidents] if incidents else None
            with _addresses_in_reports(files):
                if parts is None:
                    report = validate(files[telemetry], output=output, **options)
                else:
                    parts, options["skipped"] = files_to_read(
                        data_path, parts, options.get("window")
                    )
                    report = validate_partitions(
                        without_query(telemetry), parts, expected_md5=md5, output=output, **options
                    )
            return with_addresses(report, files, output)
    except StorageError as error:
        if error.code is ErrorCode.NO_RESPONSE:
            raise
        raise DataRefused(error, code=error.code, subject=error.subject) from error


def files_to_read(
    data_path: str, parts: Sequence[Partition], window: DataWindow | None
) -> tuple[tuple[Partition, ...], SkippedFiles | None]:
    """Return the files of a data set that may hold rows in a window, and those that are skipped.

    An address with an md5 states the content of all files, so all of them are read.

    Raises
    ------
    DataRefused
        If no file is left.
    """
    from dwcp_ml.storage.partitions import in_window

    address, md5 = without_digest(data_path)
    read, skipped = in_window(parts, None if md5 else window)
    if not read:
        raise DataRefused(
            f"{without_query(address)} has no file for the data window, {window}: {skipped}; "
            "choose another window.",
            code=ErrorCode.NO_DATA,
            subject=without_query(address),
        )
    return read, skipped


def with_addresses(
    report: DataReport, files: Mapping[str, Path], output: Path | None = None
) -> DataReport:
    """Return a report that names addresses instead of copies; write it to a dataset's directory."""
    from dwcp_ml.storage.fetch import renamed

    addressed = DataReport.model_validate_json(renamed(report.to_json(), files))
    if output is not None:
        write_text(output / REPORT_NAME, addressed.to_json())
    return addressed


@contextmanager
def _addresses_in_reports(files: Mapping[str, Path]) -> Iterator[None]:
    """Let the report of an error name the addresses instead of the copies."""
    from dwcp_ml.data.validation import InvalidTelemetry

    try:
        yield
    except InvalidTelemetry as error:
        error.report = with_addresses(error.report, files)
        raise


def check_digests(expected: Mapping[str, str | None], files: Mapping[str, Path]) -> None:
    """Check files, by address, against the md5 of each that is expected.

    Raises
    ------
    DataRefused
        If one has another md5.
    """
    from dwcp_ml.data.versioning import check_version, file_version

    for address, md5 in expected.items():
        if md5 is not None:
            check_version(without_query(address), file_version(files[address]), md5)


def version_at(address: str) -> FileVersion:
    """Return the md5 and size of a file or a data set at an address.

    Raises
    ------
    StorageError
        If it can't be read.
    """
    from dwcp_ml.data.versioning import file_version, version_of_set
    from dwcp_ml.storage.partitions import Partition, partitions_of

    def version_of(part: Partition) -> FileVersion:
        with part.opened() as path:
            return file_version(path)

    parts = partitions_of(address)
    if parts is None:
        return version_of(Partition(address, address))
    return version_of_set((part.name, version_of(part)) for part in parts)


def digest_of(dataset: Path) -> str:
    """Return the SHA-256 of a validated dataset, in hexadecimal.

    It covers telemetry, incidents, ceilings and oracles; the report is left out because it names
    paths.
    """
    digest = hashlib.sha256()
    for name in (TELEMETRY_NAME, INCIDENTS_NAME, CEILINGS_NAME, ORACLES_NAME):
        path = dataset / name
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if file.exists():
                digest.update(f"{file.relative_to(dataset)} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def check_dataset(dataset: Path, digest: str) -> None:
    """Check that a dataset is the one that was validated.

    Raises
    ------
    DwcpError
        If its digest is another one.
    """
    actual = digest_of(dataset)
    if actual != digest:
        raise DwcpError(
            f"The dataset in {dataset} is not the one that was validated: its digest is "
            f"{actual[:12]}…, not {digest[:12]}…; run the pipeline again, with --no-cache.",
            code=ErrorCode.CHANGED,
            subject=dataset,
        )


def _validate(
    options: RunOptions,
    data_path: str,
    incidents_path: str,
    output: Path,
    report: Reporter,
) -> DataReport:
    with ProgressTask("validate", report) as task:
        if any(spec.short_name == "reliability" for spec in options.specs()) and not incidents_path:
            task.advance(0.0, "no incidents file: reliability can't be evaluated")
        data_report = validate_at(
            data_path,
            incidents_path,
            specs=options.specs(),
            output=output,
            packet_loss_unit=options.packet_loss_unit,
            congestion_window_unit=options.congestion_window_unit,
            window=options.data_window,
            now=time.time(),
            progress=task.advance,
        )
        outside = data_report.rows_outside_window
        task.finish(
            f"{data_report.rows:,} rows, {data_report.rows_quarantined:,} quarantined"
            + (f", {outside:,} outside the data window" if outside else "")
        )
    if data_report.refused:
        raise DataRefused(next(d.message for d in data_report.defects if d.verdict == "error"))
    return data_report


def simulator_settings(seed: int, values: Mapping[str, Any]) -> SimulatorSettings:
    """Return the simulator's settings with ``values`` in place of the defaults.

    Raises
    ------
    UsageError
        If a setting is unknown, or a value is out of its range.
    """
    from pydantic import ValidationError

    from dwcp_ml.simulate import SimulatorSettings

    for key in values:
        if key not in SimulatorSettings.model_fields:
            allowed = did_you_mean(key, SimulatorSettings.model_fields)
            raise UsageError(f"The simulator has no setting '{key}': {allowed}.")
    try:
        return SimulatorSettings(**{"seed": seed, **values})
    except ValidationError as error:
        first = error.errors()[0]
        subject = f"{'.'.join(map(str, first['loc']))} is" if first["loc"] else "settings are"
        what = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"The simulator's {subject} invalid: {what}.") from error
