"""Makes ``pip install -e .`` work; recipes/bootstrap.sh installs the pinned set instead."""

from setuptools import find_packages, setup

setup(
    name="distill-adapt-distill",
    version="0.1.0",
    description="Small, fast machine-translation models for one domain: "
    "sequence-level distillation, domain adaptation, distillation again, with fairseq",
    author="the distill-adapt-distill authors",
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["fairseq_plugins*", "data_prep*"]),
    package_data={"": ["*.md", "*.json", "*.jsonl", "*.tsv", "*.html", "*.css", "*.js"]},
    python_requires=">=3.11,<3.14",
    # fairseq is not among these: the metadata of the release that works asks for torchaudio and
    # would build in isolation against another torch. requirements-fairseq.txt says how to install
    # it, dad-doctor whether it is there.
    install_requires=[
        "torch>=2.6",
        "numpy>=1.26",
        "backports.zstd>=1",
        "ctranslate2>=4.4",
        "fastchrf>=0.2.1",
        "flask>=3.1",
        "ftfy>=6.3",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "mtdata>=0.5.1",
        "opencc>=1.2",
        "py3langid>=0.4",
        "pyyaml>=6",
        "requests>=2.32",
        "rich>=13",
        "sacrebleu>=2",
        "sacremoses>=0.1.1",
        "safetensors>=0.4",
        "scipy",
        "sentencepiece>=0.2.3",
        "subword-nmt>=0.3.8",
        "tabulate>=0.9",
        "tqdm>=4.60",
        "urllib3>=2",
        "waitress>=3",
        "xxhash>=3",
        # what fairseq imports, since it is installed without its dependencies
        "bitarray",
        "cffi",
        "cython",
        "hydra-core>=1.3.2,<1.4",
        "omegaconf>=2.3,<2.4",
        "packaging",
        "regex",
        "scikit-learn",
    ],
    extras_require={
        "nearest": ["varikn>=1.2"],
        "ray": ["ray>=2.40"],
        "tensorboard": ["tensorboard>=2.16"],
        "test": [
            "axe-playwright-python>=0.1.4", "hypothesis>=6", "playwright>=1.50", "pytest>=8",
            "pytest-xdist>=3.5", "ray>=2.40", "tensorboard>=2.16",
        ],
    },
    entry_points={
        "console_scripts": [
            "dad-stage = data_prep.pipeline.stage:main",
            "dad-plan = data_prep.pipeline.explain:main",
            "dad-calibrate = data_prep.pipeline.calibration:main",
            "dad-run = data_prep.pipeline.schedule:main",
            "dad-doctor = data_prep.doctor:main",
            "dad-generate = fairseq_plugins.generation.generate:main",
            "dad-select = fairseq_plugins.selection.select:main",
            "dad-cache-teacher = fairseq_plugins.teachers.cache:main",
            "dad-candidates = fairseq_plugins.selection.candidates:main",
            "dad-estimate-fisher = fairseq_plugins.teachers.estimate_fisher:main",
            "dad-propose = fairseq_plugins.proposals:main",
            "dad-hand-over = fairseq_plugins.export.hand_over:main",
            "dad-keep-weights = fairseq_plugins.export.weights:main",
            "dad-export = fairseq_plugins.export.export:main",
            "dad-evaluate = fairseq_plugins.evaluation.evaluate:main",
            "dad-score = fairseq_plugins.evaluation.score:main",
            "dad-speed = fairseq_plugins.evaluation.speed:main",
            "dad-translate = fairseq_plugins.serving.translate:main",
            "dad-report = fairseq_plugins.report.report:main",
        ]
    },
)
