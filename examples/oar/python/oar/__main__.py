"""``python3 -m oar``: print the build info, one key per line."""

from oar.info import build_info


def text(value: object) -> str:
    """Show a value of the build info; an empty one is a dash."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return str(value) or "-"


def main() -> None:
    """Print the build info as an aligned table."""
    for key, value in build_info().items():
        print(f"{key:<12}{text(value)}")


if __name__ == "__main__":
    main()
