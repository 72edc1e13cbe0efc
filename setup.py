import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent

# tests/test_layers.py reads these two tables and refuses an import that neither declares.
INSTALL_REQUIRES = [
    "torch>=2.6",
    "torchvision>=0.21",
    "timm>=1.0.27",
    "fvcore>=0.1.5",
    "iopath>=0.1.9",
    "yacs>=0.1.8",
    "numpy>=1.26",
    "scipy>=1.11",
    "pycocotools>=2.0.7",
    "albumentations>=2.0.8,<2.1",
    "opencv-python-headless>=4.9",
    "safetensors>=0.4.3",
    "pyyaml>=6.0",
    "tqdm>=4.65",
    "pillow>=10.1",
    "matplotlib>=3.8",
]

EXTRAS_REQUIRE = {
    "test": ["pytest>=8.0"],
    # One minor version of ruff: the next one formats differently.
    "dev": ["ruff>=0.17.6,<0.18", "mypy>=1.11", "pre-commit>=3.5", "tensorboard>=2.15"],
    "synth": ["anny>=0.6.2", "warp-lang>=1.9", "embreex>=2.17.7"],
    "demo": ["gradio>=5.0"],
    "export": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.2"],
    # There is no distribution of detectron2 on PyPI.
    "detectron2": ["detectron2 @ git+https://github.com/facebookresearch/detectron2"],
}


def version() -> str:
    """The version written in the package, read without importing it: its dependencies are not there yet."""
    text = (HERE / "unihap" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise RuntimeError('unihap/__init__.py has no line __version__ = "..."')
    return found[1]


def readme() -> str:
    """The front page, where there is one."""
    path = HERE / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


setup(
    name="unihap",
    version=version(),
    description="One model for human-centric perception: ReID, attributes, pose, parsing and pedestrian detection",
    long_description=readme(),
    long_description_content_type="text/markdown",
    author="the unihap authors",
    license="Apache-2.0",
    packages=find_packages(include=["unihap", "unihap.*"]),
    python_requires=">=3.10",
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
)
