"""The pipeline: run here, compiled, submitted and scheduled as a package; its training alone; and runs compared."""

import contextlib
import dataclasses
import logging
import os
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from marco_model import store
from marco_model.errors import InputError
from pipelines import backend
from pipelines.commands import options


def run(
    preset: options.Preset = "local",
    output: Annotated[
        Path, typer.Option(callback=options.output_folder, help="Folder of the run: data, steps, models, summary.json.")
    ] = Path("runs/local"),
    data: Annotated[str | None, typer.Option(help="Folder, glob or gs:// URI of MARCO shards.")] = None,
    overlay: Annotated[
        str | None, typer.Option(help="Labels that experts gave, which `marco relabel merge` wrote; local or gs://.")
    ] = None,
    name: Annotated[str, typer.Option(help="The run's name in MLflow; by default the model's, with a key.")] = "",
    note: Annotated[str, typer.Option(help="The run's description in MLflow, in Markdown.")] = "",
    leave_out: options.LeaveOut = None,
    change: options.Change = None,
) -> None:
    """Read, check, train, judge and publish: the whole pipeline on this machine.

    A step whose inputs and settings have not changed is reused; a killed training resumes from its last
    checkpoint. Exit status 0: the model was blessed and published; 3: it was trained but not blessed.

    Example: marco run --preset finetune --data shards --output runs/mine --set recipe.steps=500
    """
    from pipelines import configuration

    # What follows needs the extra `train`; mistakes in the configuration are found before.
    loaded = configuration.load(preset, change, data, overlay=overlay, leave_out=leave_out)
    from components import mlflow_store
    from pipelines import local_runner, places

    loaded = places.absolute(loaded)
    tracking = places.local(loaded, output).tracking
    mlflow_store.connect(tracking)
    os.environ[mlflow_store.RUN_VARIABLE] = tracking
    with store.sole_writer(output):
        source = places.local_data(loaded, output)
        # TFX takes seconds to import; mistakes in the configuration and the stores are found before.
        local_runner.check_store(output)
        options.echo("starting TFX", err=True)
        from pipelines import pipeline

        results = local_runner.run(pipeline.create_local_pipeline(loaded, source, output), output, name, note)
    terminal = options.Terminal()
    terminal.print(local_runner.summary_table(results))
    if "leave_out" in results:
        terminal.print(local_runner.leave_out_table(results["leave_out"]))
    closing = "\n".join(local_runner.closing_lines(results, output))
    terminal.print(closing, soft_wrap=True, highlight=False)
    if not results["blessed"]:
        raise typer.Exit(3)


def ui(
    tracking: options.Tracking = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of this machine.")] = 5000,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
) -> None:
    """Show runs and models in MLflow, to this machine alone, until Ctrl-C.

    Example: marco ui
    """
    from components import mlflow_store

    uri = mlflow_store.find_store(tracking)
    page = mlflow_store.runs_page(uri)
    with contextlib.suppress(KeyboardInterrupt), mlflow_store.ui_server(uri, port) as (address, wait):
        options.echo(f"MLflow shows {uri} at {address}/{page}")
        if browser:
            webbrowser.open(f"{address}/{page}")
        wait()


def train(
    job_file: Annotated[
        str, typer.Argument(metavar="job", help="The job.json beside the checkpoints of a training; local or gs://.")
    ],
    heartbeat: Annotated[
        str, typer.Option(help="A file that whoever started this keeps changing; when it rests, save and end.")
    ] = "",
    silence: Annotated[
        float, typer.Option(help="Seconds without a change after which --heartbeat rests.", min=1)
    ] = 180,
) -> None:
    """Take part in a training, or take it up again, without the pipeline around it.

    Every process of a cluster runs this with its own TF_CONFIG (docs/training.md); without a cluster it trains alone.

    Example: marco train runs/local/checkpoints/0123456789abcdef/job.json
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for ours in ("marco_model", "components"):
        logging.getLogger(ours).setLevel(logging.INFO)
    from components.trainer import execution, job

    if heartbeat:
        from components.trainer import jobset

        jobset.end_with(heartbeat, silence)
    execution.run(job.read(job_file))


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Two or more of: a run's folder, an MLflow run id, a version, champion, challenger."),
    ],
    tracking: options.Tracking = "",
    name: options.ModelName = None,
    recall_class: Annotated[
        str | None,
        typer.Option(help="The class whose recall is compared beside accuracy; Crystals where there is such a class."),
    ] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
    csv: Annotated[
        Path | None, typer.Option(callback=options.output_file, help="A CSV to write, one line per slice and run.")
    ] = None,
    json: Annotated[Path | None, typer.Option(callback=options.output_file, help="The same as JSON.")] = None,
) -> None:
    """Compare runs slice by slice: accuracy, recall, and the differences to the first with intervals.

    Where two runs predicted the same images, they are compared image by image, which finds much smaller differences.

    Example: marco compare runs/local runs/other --csv comparison.csv
    """
    from pipelines import run_comparison

    if len(runs) < 2:
        raise InputError(f"{', '.join(runs)} alone cannot be compared; give two runs or more")
    judged = [run_comparison.find_judged(run, tracking, name) for run in runs]
    rows = run_comparison.compare(judged, recall_class, confidence)
    terminal = options.Terminal()
    for metric in dict.fromkeys(row.metric for row in rows):
        terminal.print(run_comparison.table(rows, metric))
    terminal.print("\n".join(run_comparison.describe(judged, rows, confidence)), soft_wrap=True, highlight=False)
    if csv:
        run_comparison.write_csv(rows, csv)
    if json:
        run_comparison.write_json(rows, confidence, json)


def compile_(
    output: Annotated[
        Path,
        typer.Option(
            callback=options.output_file, help="The package to write: a .yaml file, for Vertex AI a .json file."
        ),
    ],
    preset: options.Preset = "paper",
    target: Annotated[options.Target, typer.Option(help="Where the package runs.")] = "kubeflow",
    root: Annotated[
        str,
        typer.Option(
            help="A URI for artifacts, checkpoints, models and data; or a mounted path for all but the artifacts, "
            "which Kubeflow Pipelines then keeps in its own store. For Vertex AI gs://BUCKET/FOLDER."
        ),
    ] = "/shared",
    image: Annotated[
        str | None, typer.Option(help="Container image with this project, best by digest; by default cluster.image.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="MARCO shards; by default the preset's, or ROOT/data.")] = None,
    site: Annotated[
        Path | None,
        typer.Option(help="A .yaml file laid over the preset: what your cluster gives, such as k8s/site.yaml."),
    ] = None,
    leave_out: options.LeaveOut = None,
    change: options.Change = None,
) -> None:
    """Compile the pipeline of `marco run`, unchanged, into a package of Kubeflow Pipelines or Vertex AI (schema 2.1).

    Data, steps of training and a run's label are parameters of the package, with the preset's as defaults.

    Example: marco compile --preset paper --site k8s/site.yaml --data gs://BUCKET/marco --root gs://BUCKET/runs
    --image REGISTRY/marco@sha256:… --output marco.yaml
    """
    from pipelines import configuration

    changes = [*(change or []), *([f"cluster.image={image}"] if image else [])]
    loaded = configuration.load(preset, changes, data, site, leave_out=leave_out)
    # TFX takes seconds to import; mistakes in the configuration are found before.
    from pipelines import compilation

    vertex = target == "vertex"
    compile_for = compilation.compile_for_vertex if vertex else compilation.compile_for_kubeflow
    steps = compile_for(loaded, root, output)
    options.echo(f"{steps} steps in {output}; image {loaded.cluster.image}")
    if "@sha256:" not in loaded.cluster.image:
        options.echo(
            "note: name the image by its digest; behind a tag it can change, and finished steps would be reused"
        )


Package = Annotated[Path | None, typer.Argument(help="The .yaml file that marco compile wrote; for Vertex AI .json.")]


@dataclasses.dataclass(frozen=True)
class ServiceOptions(options.VertexOptions):
    """Which service runs a package, and how to reach it."""

    target: Annotated[options.Target, typer.Option(help="Where it runs.")] = "kubeflow"
    host: Annotated[
        str | None,
        typer.Option(
            envvar="KF_PIPELINES_ENDPOINT",
            help="URL of Kubeflow Pipelines; by default that of the pod this runs in, or of kubectl's context.",
        ),
    ] = None
    namespace: Annotated[
        str | None, typer.Option(help="Namespace of the runs, where an installation has several users.")
    ] = None
    token_file: Annotated[
        Path | None, typer.Option(help="A file with a bearer token, which may be renewed during the run.")
    ] = None
    ca: Annotated[Path | None, typer.Option(help="A file with the certificates to trust.")] = None
    experiment: Annotated[
        str | None, typer.Option(help="An experiment of Kubeflow; by default marco, which is made if it is missing.")
    ] = None
    create_experiment: Annotated[
        bool, typer.Option("--create-experiment", help="Make the experiment if it is missing.")
    ] = False

    def connect(self) -> backend.Backend:
        """Returns the service; raises `InputError` for options of the other one."""
        from pipelines import kubeflow_backend, vertex_backend

        if self.target == "kubeflow":
            return kubeflow_backend.KubeflowBackend(
                self.host, self.namespace, self.token_file, self.ca, self.experiment, self.create_experiment
            )
        if names := [f"--{name}" for name in ("host", "namespace", "experiment") if getattr(self, name) is not None]:
            raise InputError(f"{', '.join(names)}: Vertex AI has none; leave it out, or give --target kubeflow")
        return vertex_backend.VertexBackend(vertex_backend.place(self.project, self.location, self.api))


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What a run or schedule gets beside the package."""

    data: Annotated[str | None, typer.Option(help="Shards of scored images; by default the package's.")] = None
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of training; by default the preset's.")] = None
    run_label: Annotated[str | None, typer.Option(help="A label, kept as the tag run_label of the run in MLflow.")] = (
        None
    )
    note: Annotated[str | None, typer.Option(help="A description of the run in MLflow, in Markdown.")] = None
    parameter: Annotated[
        list[str] | None, typer.Option(help="Any parameter of the package, as name=value. May be repeated.")
    ] = None
    pipeline_root: Annotated[str | None, typer.Option(help="Where artifacts go; by default as compiled.")] = None
    service_account: Annotated[
        str | None,
        typer.Option(help="Service account of the steps, such as marco-pipeline; by default Kubeflow's own."),
    ] = None

    def submission(self, cache: bool = True) -> backend.Submission:
        """Returns them as a backend takes them; raises `InputError` for a parameter without a `=`."""
        steps = str(self.steps) if self.steps else None
        values = {"data": self.data, "steps": steps, "run_label": self.run_label, "note": self.note}
        parameters = {name: value for name, value in values.items() if value is not None}
        for text in self.parameter or []:
            name, equals, value = text.partition("=")
            if not equals or not name:
                raise InputError(f"--parameter {text!r} has no '='; write it as name=value")
            parameters[name] = value
        return backend.Submission(parameters, self.pipeline_root, self.service_account, cache)


@options.grouped
def submit(
    *,
    package: Package = None,
    service: ServiceOptions,
    name: Annotated[
        str | None, typer.Option(help="Name of the run, also in MLflow; by default the pipeline's and the time.")
    ] = None,
    run: RunOptions,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Reuse steps that have not changed.")] = True,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")] = True,
    follow: Annotated[str | None, typer.Option(help="Start nothing; follow the run of this id.")] = None,
    resubmit: Annotated[
        int,
        typer.Option(
            min=0,
            max=20,
            help="How often to start another run after one that failed, such as one whose pod was preempted.",
        ),
    ] = 0,
) -> None:
    """Run a compiled package on Kubeflow Pipelines or Vertex AI, and follow it until it ends, one line per step.

    The package is uploaded as a version of its pipeline unless it is there already. The exit status is 1 if the run
    fails. Ctrl-C stops following; the run continues. With --resubmit, a run that fails is followed by another one,
    which reuses finished steps and trains from the last checkpoint.

    Example: marco submit marco.yaml --host http://localhost:8080 --steps 1000 --run-label first
    """
    if resubmit and (follow or not wait):
        raise InputError(f"--resubmit {resubmit} needs a run to follow; leave --no-wait and --follow out")
    runner = service.connect()
    if follow:
        _follow(runner, follow)
        return
    content = runner.read_package(_required(package))
    submission = run.submission(cache)
    if name and "run_name" in content.parameters:
        submission.parameters.setdefault("run_name", name)
    content.check_parameters(submission.parameters)
    if sentence := runner.upload(content):
        options.echo(sentence)
    for left in range(resubmit, -1, -1):
        identity = runner.start(content, name, submission)
        options.echo(f"Run {identity} started.")
        if not wait:
            return
        try:
            _follow(runner, identity, content.steps)
            return
        except backend.RunFailedError as error:
            if not left:
                raise
            options.echo(f"note: {error}; another run is started, {left} of {resubmit} left", err=True)


@options.grouped
def schedule(
    *,
    package: Package = None,
    cron: Annotated[
        str | None,
        typer.Option(
            help="When, as second minute hour day month weekday, in the server's time zone, mostly UTC. On Vertex AI "
            "without seconds, and with a time zone if not UTC: 'TZ=Europe/Berlin 0 3 * * 1'."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the schedule; by default the pipeline's.")] = None,
    service: ServiceOptions,
    run: RunOptions,
    max_concurrency: Annotated[int, typer.Option(min=1, max=10, help="Runs at the same time.")] = 1,
    show: Annotated[bool, typer.Option("--list", help="Change nothing; list the experiment's schedules.")] = False,
    remove: Annotated[str | None, typer.Option(help="Remove the schedule of this name.")] = None,
) -> None:
    """Run a compiled package on Kubeflow Pipelines or Vertex AI on a schedule. The same command again changes nothing.

    A changed package, time or parameter replaces the schedule of the same name. A missed run is not made up for. A run
    over unchanged data reuses every step.

    Example: marco schedule marco.yaml --host http://localhost:8080 --cron "0 0 3 * * 1"
    """
    runner = service.connect()
    if remove:
        if not backend.remove_schedules(runner, remove):
            raise InputError(f"there is no schedule {remove!r}; marco schedule{runner.options} --list shows them")
        options.echo(f"Schedule {remove} removed.")
        return
    if show:
        for existing in runner.schedules():
            options.echo(f"{existing.name}  {existing.cron}  {existing.state}  {existing.identity}")
        return
    if not cron:
        raise InputError(f"--cron is missing; give {runner.cron_fields}")
    when, words = runner.read_cron(cron)
    content = runner.read_package(_required(package))
    plan = backend.Plan(name or content.name, when, content, run.submission(), max_concurrency)
    content.check_parameters(plan.submission.parameters)
    identity, outcome = backend.ensure_schedule(runner, plan)
    options.echo(f"Schedule {plan.name} {outcome}: {when} ({words}), {runner.schedule_noun} {identity}.")


def _follow(runner: backend.Backend, run: str, steps: tuple[str, ...] = ()) -> None:
    try:
        backend.follow(runner, run, steps)
    except KeyboardInterrupt:
        options.echo(f"The run goes on; follow it with: marco submit{runner.options} --follow {run}")
        raise typer.Exit(130) from None
    options.echo(f"Run {run} succeeded.")


def _required(package: Path | None) -> Path:
    if package is None:
        raise InputError("no package is named; give the .yaml file that marco compile wrote")
    return package
