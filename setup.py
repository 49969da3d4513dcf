"""Build emsr_fast._C with CMake and map the top-level kernels/ folder into the package.

Environment:
    EMSR_FAST_NO_NATIVE=1       no compiled code at all; everything runs on the reference backend
    EMSR_CUDA=AUTO|ON|OFF       CUDA kernels: when nvcc is found (default), always, never
    EMSR_CUDA_ARCHITECTURES     narrows them for development, for example "90-real"
    CMAKE_ARGS                  more arguments for CMake
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()


class CleanBuild(build_py):
    """Builds into an empty folder: setuptools would keep modules there that the sources no longer have."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class CMakeBuild(build_ext):
    """Configures and builds with CMake and ninja, afresh each time."""

    def build_extension(self, ext: Extension) -> None:
        import ninja
        import pybind11

        out_dir = Path(self.get_ext_fullpath(ext.name)).parent.resolve()
        build_dir = Path(self.build_temp).resolve() / ext.name
        build_dir.mkdir(parents=True, exist_ok=True)
        choices = [
            f"-D{name}={os.environ[name]}" for name in ("EMSR_CUDA", "EMSR_CUDA_ARCHITECTURES") if name in os.environ
        ]
        configure = [
            *("cmake", "--fresh", "-S", str(ROOT), "-B", str(build_dir), "-G", "Ninja"),
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            # pip's isolated environment is gone after each build: never reuse its cached ninja
            f"-DCMAKE_MAKE_PROGRAM={Path(ninja.BIN_DIR) / 'ninja'}",
            f"-DEMSR_OUTPUT_DIR={out_dir}",
            *choices,
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        try:
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", str(build_dir)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"emsr_fast: building the compiled kernels failed ({error}). "
                "A C++17 compiler (GCC or Clang) is needed; "
                "EMSR_FAST_NO_NATIVE=1 installs without compiled code, slower but complete."
            ) from error


native = os.environ.get("EMSR_FAST_NO_NATIVE", "").lower() in ("", "0", "false", "no", "off")
kernels = ["emsr_fast.kernels", *(f"emsr_fast.kernels.{name}" for name in find_packages("kernels"))]
setup(
    packages=[*find_packages(include=["emsr_fast", "emsr_fast.*"]), *kernels],
    package_dir={"emsr_fast": "emsr_fast", "emsr_fast.kernels": "kernels"},
    ext_modules=[Extension("emsr_fast._C", sources=[])] if native else [],
    cmdclass={"build_py": CleanBuild, "build_ext": CMakeBuild},
)
