"""Every object of some files against the API's schemas of some versions, strictly.

validate.py VERSION[,VERSION...] FILE...    exit 1 and what is wrong; else how many objects were looked
                                            at for each version, and which kinds have no schema
"""

import functools
import sys

import kubernetes_validate.utils
import yaml
from kubernetes_validate import InvalidSchemaError, SchemaNotFoundError, ValidationError

# One file of definitions serves all objects of a version.
kubernetes_validate.utils.schema_contents = functools.lru_cache(kubernetes_validate.utils.schema_contents)


def main(versions, *files):
    objects = [(file, each) for file in files for each in read(file)]
    faults = []
    for version in versions.split(","):
        known, unknown = 0, set()
        for file, each in objects:
            try:
                kubernetes_validate.validate(each, version, strict=True)
                known += 1
            except SchemaNotFoundError:
                unknown.add(each["kind"])
            except (InvalidSchemaError, ValidationError) as error:
                name = each["metadata"]["name"]
                faults.append(f"{version}: {file}: {each['kind']} {name}: {error.path}: {error.message}")
        print(version, known, *sorted(unknown))
    if faults:
        sys.exit("\n".join(faults))


def read(file):
    with open(file, encoding="utf-8") as stream:
        return [each for each in yaml.load_all(stream, yaml.CSafeLoader) if each]


if __name__ == "__main__":
    main(*sys.argv[1:])
