"""One item into a table (`--table`: a POST), or one object into a bucket (`--bucket`: a PUT), with `boto3`."""

import io
import sys

import boto3
from botocore.config import Config
from said import say

keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
style = Config(s3={"addressing_style": "path"})
session = boto3.session.Session(region_name="eu-central-1", **keys)
if "--table" in sys.argv:
    table = session.client("dynamodb", endpoint_url=sys.argv[-1])
    answer = table.put_item(TableName="orders", Item={"order": {"S": "intro.mp4"}})
else:
    # Two megabytes: what is large waits for `100 Continue`, and does not fit into memory.
    bucket = session.client("s3", endpoint_url=sys.argv[-1], config=style)
    answer = bucket.put_object(Bucket="videos", Key="in tro.mp4", Body=io.BytesIO(b"film" * 524288))

seen = answer["ResponseMetadata"]
headers = {"Samekey-Attempts": seen["HTTPHeaders"].get("samekey-attempts", "")}
say("boto3", seen["HTTPStatusCode"], headers, "{}")
