# The Spack recipe. Not run yet: there was no Spack where it was written, so that names of packages are not checked
# either (ale-py is the rarest of them). Bounds are those of setup.cfg. Horovod is left to tools/build_horovod.sh, in
# the environment where this is loaded, or to --set update.backend=mpi.
#
#   spack repo add jobs/spack
#   spack dev-build hpcddrl@0.1.0 ^openmpi schedulers=slurm fabrics=ucx      in the folder of the sources
from spack.package import *


class Hpcddrl(PythonPackage):
    """MPI batch jobs for distributed deep reinforcement learning."""

    license("MIT")

    version("0.1.0")

    variant("report", default=True, description="What the command report needs")

    depends_on("python@3.11:", type=("build", "run"))
    depends_on("py-setuptools@64:", type="build")
    with default_args(type="run"):
        depends_on("mpi")
        depends_on("py-ale-py@0.11:")
        depends_on("py-click")
        depends_on("py-gymnasium@1.1:")
        depends_on("py-h5py")
        depends_on("py-mpi4py@4.1:")
        depends_on("py-numpy@2:")
        depends_on("py-psutil")
        depends_on("py-pydantic@2:")
        depends_on("py-rich")
        depends_on("py-scipy")
        depends_on("py-torch@2.1:")
        depends_on("py-jinja2", when="+report")
        depends_on("py-matplotlib@3.7:", when="+report")
        depends_on("py-pandas", when="+report")
        depends_on("py-scipy@1.15:", when="+report")
