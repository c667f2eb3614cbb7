"""`python3 -m orders`: answers on port 8092 until it is told to end."""

from importlib.resources import files

import waitress
import yaml
from flask import Flask, abort, jsonify, request
from sqlalchemy import create_engine, text


def make(database: str) -> Flask:
    """The application over a database."""
    menu = yaml.safe_load(files("orders").joinpath("menu.yaml").read_text())
    engine = create_engine(database)
    with engine.begin() as connection:
        connection.execute(text("create table if not exists orders (item text, count integer)"))
    app = Flask("orders")

    @app.get("/")
    def total():
        with engine.begin() as connection:
            rows = connection.execute(text("select item, count from orders")).all()
        return jsonify(orders=len(rows), cents=sum(menu[item] * count for item, count in rows))

    @app.post("/<item>")
    def order(item: str):
        if item not in menu:
            abort(404)
        count = request.args.get("count", 1, type=int)
        values = {"item": item, "count": count}
        with engine.begin() as connection:
            connection.execute(text("insert into orders values (:item, :count)"), values)
        return jsonify(values), 201

    return app


def main() -> None:
    """Serves the orders in /var/lib/orders."""
    waitress.serve(make("sqlite:////var/lib/orders/orders.db"), port=8092, threads=4)


if __name__ == "__main__":
    main()
