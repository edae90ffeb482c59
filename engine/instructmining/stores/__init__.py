"""Files in object stores, by addresses such as ``s3://BUCKET/KEY``; all other names are paths of this machine."""
