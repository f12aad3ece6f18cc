import sys

from flask import Flask

app = Flask(__name__)


@app.route("/hello/<name>")
def hello(name):
    return f"Hello, {name}!"


if __name__ == "__main__":
    if "--check" in sys.argv:
        answer = app.test_client().get("/hello/you")
        print("GET /hello/you:", answer.status_code, answer.text)
    else:
        app.run(host="0.0.0.0", port=8000)
