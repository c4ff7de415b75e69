import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from tests.e2e.quickstart.task import Net, load_data, train

app = ClientApp()


@app.train()
def train_fn(message: Message, context: Context) -> Message:
    model = Net()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    images, labels = load_data(int(context.node_config["partition-id"]))
    loss = train(model, images, labels, float(message.content.config_records["config"]["lr"]))  # type: ignore[arg-type]
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(labels)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate_fn(message: Message, context: Context) -> Message:
    model = Net()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    images, labels = load_data(int(context.node_config["partition-id"]))
    with torch.no_grad():
        accuracy = float((model(images).argmax(1) == labels).float().mean())
    metrics = MetricRecord({"eval_acc": accuracy, "num-examples": len(labels)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
