"""Writes ../official/chexpert.csv as Parquet: python make_parquet.py (needs pandas and pyarrow)."""

import pathlib

import pandas

here = pathlib.Path(__file__).parent
table = pandas.read_csv(here.parent / "official" / "chexpert.csv")
table.to_parquet(here / "chexpert.zstd.parquet", compression="zstd", index=False, row_group_size=25)
