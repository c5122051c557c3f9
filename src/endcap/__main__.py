"""`python -m endcap` is `endcap`."""

from endcap.cli.main import run

if __name__ == "__main__":
    run()
